"""`careen release`: build releases, publish them into a folder, sign, and look into them."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from careen.cli.target import CommandError

if TYPE_CHECKING:
    from securesystemslib.signer import Key

    from careen.release.keys import Signers
    from careen.release.trust import Note, RoleName

app = typer.Typer(no_args_is_help=True, help="Build releases, publish them into a folder, sign, and look into them.")
keys_app = typer.Typer(no_args_is_help=True, help="Make keys, begin a repository with them, and change them later.")
app.add_typer(keys_app, name="keys")

Output = Annotated[Literal["table", "json"], typer.Option("--output", "-o", help="How to print: table or json.")]
Repository = Annotated[Path, typer.Argument(metavar="REPOSITORY", help="Folder that a web server serves.")]
KeyPlaces = Annotated[
    list[Path],
    typer.Option(
        "--keys",
        "-k",
        help="A key file, or a folder with *.pem files; repeatable. Passphrase: $CAREEN_RELEASE_PASSPHRASE.",
    ),
]
PerRole = Annotated[
    list[str] | None, typer.Option("--threshold", help="ROLE=N: how many of the role's keys must sign; repeatable.")
]


@app.command()
def build(
    tree: Annotated[Path, typer.Argument(help="A root file system, of which usr/ is taken, or a /usr tree.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the build: empty, absent, or an earlier build.")],
    version: Annotated[str, typer.Option("--version", help="Version of the OS, such as 2026.11.1 or 3.0~rc1.")],
    product: Annotated[str, typer.Option("--product", help="What the OS is called; other products refuse it.")],
    *,
    architecture: Annotated[
        str, typer.Option("--architecture", help="As `uname -m` names it. Default: of this machine.")
    ] = platform.machine(),
    kernel: Annotated[
        Path | None, typer.Option("--kernel", help="Kernel. Default: boot/vmlinuz of the /usr tree, if it is there.")
    ] = None,
    initrd: Annotated[
        Path | None, typer.Option("--initrd", help="Initrd. Default: boot/initrd.img of the /usr tree, if it is there.")
    ] = None,
    filesystem: Annotated[Literal["ext4", "erofs"], typer.Option("--filesystem", help="ext4 or erofs.")] = "ext4",
    size: Annotated[
        int | None,
        typer.Option(
            "--size", help="Bytes of the ext4 file system; a fixed one keeps deltas small. Default: as needed."
        ),
    ] = None,
    min_version: Annotated[
        str | None, typer.Option("--min-version", help="Oldest version that may update to this one. Default: any.")
    ] = None,
    state_version: Annotated[int, typer.Option("--state-version", help="Version of the data below /var.")] = 0,
    agent_protocol: Annotated[int, typer.Option("--agent-protocol", help="Protocol of the agent in the image.")] = 1,
    capabilities: Annotated[
        list[str] | None,
        typer.Option("--capability", help="What the OS can do, such as trial-timer; repeatable."),
    ] = None,
    source_date: Annotated[
        int,
        typer.Option(
            "--source-date", min=0, envvar="SOURCE_DATE_EPOCH", help="Later times are set to it; seconds since 1970."
        ),
    ] = 1_000_000_000,
    all_root: Annotated[bool, typer.Option("--all-root", help="Let everything belong to root.")] = False,
    level: Annotated[int, typer.Option("--level", min=1, max=19, help="zstd level, 1 to 19.")] = 9,
    output: Output = "table",
) -> None:
    """Build a release for one architecture. The same tree and options give the same bytes."""
    from careen.cli.releases import describe_release, show_release
    from careen.release.build import Build, build_release
    from careen.release.manifest import digest_document

    wanted = Build(
        tree,
        version,
        product,
        architecture,
        filesystem=filesystem,
        kernel=kernel,
        initrd=initrd,
        min_version=min_version,
        state_version=state_version,
        agent_protocol=agent_protocol,
        capabilities=tuple(capabilities or ()),
        filesystem_bytes=size,
        source_date=source_date,
        all_root=all_root,
        level=level,
    )
    document = build_release(wanted, out)
    show_release(describe_release(document, digest_document(document.dump())), output)


@app.command()
def publish(
    repository: Repository,
    keys: KeyPlaces,
    builds: Annotated[
        list[Path] | None, typer.Argument(metavar="[BUILD]...", help="Folders made by build, one for an architecture.")
    ] = None,
    channels: Annotated[
        list[str] | None, typer.Option("--channel", help="Channel that is to name this release; repeatable.")
    ] = None,
    version: Annotated[
        str | None, typer.Option("--version", help="Instead of builds: a published version for the channels.")
    ] = None,
) -> None:
    """Put built architectures into a repository as one release, and let channels name it.

    Needs the targets key, and the snapshot and timestamp keys (or a `sign` where those are).
    """
    from careen.release.repository import publish_release, set_channels

    if bool(builds) == (version is not None):
        raise typer.BadParameter("give either builds or --version")
    names, signers = channels or [], _load(keys)
    if version is not None:
        if not names:
            raise typer.BadParameter("--version needs --channel")
        done = set_channels(repository, version, signers, channels=names)
    else:
        done = publish_release(repository, builds or [], signers, channels=names)
    _tell(done.notes)
    waits = "" if done.in_force else " (waits for more signatures: run sign with the other targets keys)"
    typer.echo(f"{done.version} {done.digest}{waits}")


@app.command()
def sign(repository: Repository, keys: KeyPlaces) -> None:
    """Sign what waits for these keys, and a new timestamp; to be run regularly, well before the timestamp expires.

    Exit code 1 if there was nothing that these keys could sign.
    """
    from careen.release.repository import sign_repository

    notes = sign_repository(repository, _load(keys))
    _tell(notes)
    if not any(note.done for note in notes):
        raise CommandError(f"nothing in {repository} could be signed with these keys")


@app.command()
def inspect(
    place: Annotated[str, typer.Argument(help="Folder of a build, folder of a repository, or URL of a repository.")],
    *,
    version: Annotated[str | None, typer.Option("--version", help="Look at this release of the repository.")] = None,
    channel: Annotated[
        str | None, typer.Option("--channel", help="Look at the release that this channel names.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option("--against", help="Version in the same repository, or folder of a build, to update from."),
    ] = None,
    trust_root: Annotated[
        Path | None, typer.Option("--trust-root", help="root.json to check a repository's URL with.")
    ] = None,
    output: Output = "table",
) -> None:
    """Show a release (document, sizes, what an update fetches) or a repository (channels, expiries, keys)."""
    from careen.cli.releases import inspect_place

    if version is not None and channel is not None:
        raise typer.BadParameter("give one of --version and --channel")
    inspect_place(place, version=version, channel=channel, against=against, trust_root=trust_root, output=output)


@keys_app.command()
def create(
    folder: Annotated[Path, typer.Argument(help="Folder for the key files; made if it is not there.")],
    names: Annotated[
        list[str] | None, typer.Option("--name", help="Names of keys, such as root-2. Default: one for each role.")
    ] = None,
    encrypt: Annotated[
        bool, typer.Option("--encrypt", help="Encrypt with the passphrase in $CAREEN_RELEASE_PASSPHRASE.")
    ] = False,
) -> None:
    """Make keys: NAME.pem, which is secret, and NAME.pub.pem. Prints each key's id. Nothing is overwritten."""
    from careen.release.keys import KEY_SUFFIX, PASSPHRASE_VARIABLE, create_key, read_passphrase
    from careen.release.trust import ROLES

    passphrase = read_passphrase() if encrypt else None
    if encrypt and not passphrase:
        raise CommandError(f"--encrypt needs a passphrase in {PASSPHRASE_VARIABLE}")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in names or ROLES:
        path = folder / f"{name}{KEY_SUFFIX}"
        typer.echo(f"{create_key(path, passphrase)}  {path}")


@keys_app.command("show")
def show_keys(
    places: Annotated[list[Path], typer.Argument(metavar="KEY...", help="Key files, or folders with *.pem files.")],
) -> None:
    """Print the ids of keys, private or public."""
    from careen.release.keys import list_key_files, load_public_key, read_passphrase

    for place in places:
        for path in list_key_files(place):
            typer.echo(f"{load_public_key(path, read_passphrase()).keyid}  {path}")


@keys_app.command()
def init(
    repository: Repository,
    keys: KeyPlaces,
    thresholds: PerRole = None,
    days: Annotated[
        list[str] | None,
        typer.Option("--days", help="ROLE=N: days until what it signs expires (365, 365, 30, 7); repeatable."),
    ] = None,
) -> None:
    """Begin an empty repository. A key's role is the beginning of its file name: root, targets, snapshot, timestamp.

    Prints the path of root.json, which is what images get as their trust root.
    """
    from careen.release.keys import list_key_files, load_public_key, read_passphrase
    from careen.release.repository import create_repository
    from careen.release.trust import ROLES

    public: dict[RoleName, list[Key]] = {role: [] for role in ROLES}
    for place in keys:
        for path in list_key_files(place):
            role = next((role for role in ROLES if path.name.startswith(role)), None)
            if role is None:
                raise CommandError(f"{path}: its name does not begin with a role; allowed: {', '.join(ROLES)}")
            public[role].append(load_public_key(path, read_passphrase()))
    create_repository(repository, public, _load(keys), thresholds=_read_numbers(thresholds), days=_read_numbers(days))
    typer.echo(repository / "metadata" / "root.json")


@keys_app.command()
def rotate(
    repository: Repository,
    keys: KeyPlaces,
    add: Annotated[list[str] | None, typer.Option("--add", help="ROLE=FILE: a key that may sign; repeatable.")] = None,
    remove: Annotated[
        list[str] | None, typer.Option("--remove", help="ROLE=ID: a key that may no longer sign; repeatable.")
    ] = None,
    thresholds: PerRole = None,
) -> None:
    """Make the next root.json with other keys, or only with a new expiry, and sign what follows from it.

    Needs enough of the old root keys and of the new ones. What is missing leaves a draft, which `sign` completes.
    """
    from careen.release.keys import load_public_key, read_passphrase
    from careen.release.repository import Rotation, rotate_keys

    added = [(role, load_public_key(Path(value), read_passphrase())) for role, value in _read_pairs(add)]
    rotation = Rotation(added, _read_pairs(remove), _read_numbers(thresholds))
    _tell(rotate_keys(repository, _load(keys), rotation))


def _load(places: list[Path]) -> Signers:
    from careen.release.keys import load_keys, read_passphrase

    return load_keys(places, read_passphrase())


def _tell(notes: list[Note] | tuple[Note, ...]) -> None:
    for note in notes:
        typer.echo(note.text, err=not note.done)


def _read_pairs(words: list[str] | None) -> list[tuple[RoleName, str]]:
    from careen.release.trust import ROLES

    pairs = []
    for word in words or []:
        role, equals, value = word.partition("=")
        if role not in ROLES or not equals or not value:
            raise CommandError(f"{word!r} is no ROLE=VALUE; allowed roles: {', '.join(ROLES)}")
        pairs.append((role, value))
    return pairs


def _read_numbers(words: list[str] | None) -> dict[RoleName, int]:
    numbers = {}
    for role, value in _read_pairs(words):
        if not value.isdigit():
            raise CommandError(f"{role}={value} is no number; allowed: 1 and more")
        numbers[role] = int(value)
    return numbers
