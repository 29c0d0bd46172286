"""Where the API server is and how to prove who we are: service account or kubeconfig, read again when they change."""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from careen.kube.errors import ConfigError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class TokenFile:
    """A bearer token in a file that somebody renews under us: kubelet's projected volume, or kubeconfig's tokenFile."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, int, int] | None = None
        self._header = ""

    def header(self) -> str:
        """The Authorization header, from the file if it changed since the last look (one stat a request).

        A file that can't be read just now keeps the last token: a renewal may be half done. ConfigError if there
        never was a token.
        """
        try:
            stat = self.path.stat()
            stamp = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            if stamp != self._stamp:
                token = self.path.read_text().strip()
                if token:
                    self._header, self._stamp = f"Bearer {token}", stamp
        except OSError as error:
            if not self._header:
                raise ConfigError(f"token file {self.path} can't be read: {error.strerror}") from error
        if not self._header:
            raise ConfigError(f"token file {self.path} is empty")
        return self._header


@dataclass(frozen=True)
class Tls:
    """What a TLS connection needs, as contents, so that equal means nothing changed. ca None: the system's roots."""

    ca: str | None = None
    cert: bytes | None = None
    key: bytes | None = None
    verify: bool = True
    server_name: str | None = None

    def context(self) -> ssl.SSLContext:
        """An SSL context of these contents; ConfigError if they are no certificates."""
        try:
            context = ssl.create_default_context(cadata=self.ca)
            # Python 3.13 asks for extensions that the CAs of many clusters lack, and that kubectl does not ask for.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            if not self.verify:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if self.cert and self.key:
                self._load_chain(context)
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(f"the CA, client certificate or client key is not usable: {error}") from error
        return context

    def _load_chain(self, context: ssl.SSLContext) -> None:
        # OpenSSL takes the chain only from files; they live for this call alone, so no crash leaves a key behind.
        with tempfile.TemporaryDirectory(prefix="careen-") as folder:
            cert, key = Path(folder, "cert"), Path(folder, "key")
            cert.write_bytes(self.cert or b"")
            key.write_bytes(self.key or b"")
            context.load_cert_chain(cert, key)


@dataclass(frozen=True)
class Endpoint:
    """One API server and our credentials for it. `token` goes before `authorization`."""

    host: str
    tls: Tls
    token: TokenFile | None = None
    authorization: str | None = None
    proxy: str | None = None

    def header(self) -> str | None:
        """The Authorization header for the next request; None with a client certificate or no credentials."""
        return self.token.header() if self.token else self.authorization


async def load_endpoint(kubeconfig: Path | None = None, context: str | None = None) -> Endpoint:
    """Find the API server: the given kubeconfig, else $KUBECONFIG, else the pod's service account, else ~/.kube/config.

    `context` names a context of the kubeconfig (default: its current one). ConfigError says what is missing.
    """
    if kubeconfig is not None:
        return await _from_kubeconfig(str(kubeconfig), context)
    if os.environ.get("KUBECONFIG"):
        return await _from_kubeconfig(os.environ["KUBECONFIG"], context)
    if os.environ.get("KUBERNETES_SERVICE_HOST") and context is None:
        return _from_service_account(SERVICE_ACCOUNT)
    return await _from_kubeconfig(str(Path.home() / ".kube" / "config"), context)


def _from_service_account(folder: Path) -> Endpoint:
    """Written here and not taken from the official client: it is two files, and importing that client would cost the
    agent on every machine 17 MB and twice the start-up time."""
    host = os.environ["KUBERNETES_SERVICE_HOST"]
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    try:
        ca = (folder / "ca.crt").read_text()
    except OSError as error:
        raise ConfigError(
            f"KUBERNETES_SERVICE_HOST is set, but {folder}/ca.crt can't be read ({error.strerror}): "
            "mount the service account, or give a kubeconfig"
        ) from error
    token = TokenFile(folder / "token")
    token.header()
    return Endpoint(f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}", Tls(ca), token)


async def _from_kubeconfig(paths: str, context: str | None) -> Endpoint:
    """The official loader merges the files and runs exec and OIDC plugins; contents that it would copy into
    temporary files (private keys) or read only once (tokenFile) are taken out before."""
    if not any(Path(path).expanduser().exists() for path in paths.split(os.pathsep) if path):
        raise ConfigError(f"no kubeconfig at {paths}: give one, set KUBECONFIG, or run in a pod")
    proxied = any(os.environ.get(name) for name in ("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"))
    if os.pathsep not in paths and not proxied and (plain := _read_plain(Path(paths).expanduser(), context)):
        return plain
    import yaml

    try:
        from kubernetes.aio.client.configuration import Configuration
        from kubernetes.aio.config import ConfigException
        from kubernetes.aio.config.kube_config import KubeConfigLoader, KubeConfigMerger
    except ImportError as error:
        raise ConfigError(
            f"kubeconfig {paths} can't be used by this build, which has no plugins; "
            "allowed: one file with a server, its CA, and a token or client certificate"
        ) from error

    try:
        merged = KubeConfigMerger(paths).config
        chosen = merged["contexts"].get_with_name(context or merged["current-context"])["context"]
        cluster = merged["clusters"].get_with_name(chosen["cluster"])["cluster"]
        user = _user_of(merged, chosen)
        ca = _take(cluster, "certificate-authority")
        cert, key = _take(user, "client-certificate"), _take(user, "client-key")
        token = _take_token_file(user)
        loader = KubeConfigLoader(config_dict=merged, active_context=context, config_base_path=None)
        found = Configuration()
        await loader.load_and_set(found)
    except (ConfigException, yaml.YAMLError, OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"kubeconfig {paths} can't be used: {error}") from error
    if user is not None and "exec" in user and not (found.api_key or found.cert_file):
        raise ConfigError(f"kubeconfig {paths}: the exec plugin {user['exec']['command']!r} gave no credentials")
    tls = Tls(
        ca=ca.decode() if ca else None,
        cert=cert or _read(found.cert_file),
        key=key or _read(found.key_file),
        verify=bool(found.verify_ssl),
        server_name=found.tls_server_name,
    )
    return Endpoint(str(found.host), tls, token, found.api_key.get("BearerToken"), found.proxy)


_PLAIN_CLUSTER = {
    "server", "certificate-authority", "certificate-authority-data", "insecure-skip-tls-verify", "tls-server-name",
}  # fmt: skip
_PLAIN_USER = {
    "token", "tokenFile", "client-certificate", "client-certificate-data", "client-key", "client-key-data",
}  # fmt: skip


def _read_plain(path: Path, context: str | None) -> Endpoint | None:
    """The endpoint of a kubeconfig that needs no plugin; None if it does or is not as it must be.

    Written here for the agents of machines outside Kubernetes, for the reason given above; whatever is not plain is
    left to the official loader, its complaints included.
    """
    import yaml

    try:
        document = yaml.safe_load(path.read_bytes())
        chosen = _by_name(document["contexts"], context or document["current-context"], "context")
        cluster = _by_name(document["clusters"], chosen["cluster"], "cluster")
        user = _by_name(document["users"], chosen["user"], "user") if chosen.get("user") else {}
        if set(cluster) - _PLAIN_CLUSTER or set(user) - _PLAIN_USER or not isinstance(cluster["server"], str):
            return None
        ca = _read_entry(path, cluster, "certificate-authority")
        cert, key = _read_entry(path, user, "client-certificate"), _read_entry(path, user, "client-key")
        file = TokenFile(path.absolute().parent / user["tokenFile"]) if user.get("tokenFile") else None
        tls = Tls(
            ca=ca.decode() if ca else None,
            cert=cert,
            key=key,
            verify=not cluster.get("insecure-skip-tls-verify", False),
            server_name=cluster.get("tls-server-name"),
        )
    except (yaml.YAMLError, OSError, ValueError, TypeError, KeyError, AttributeError, StopIteration):
        return None
    if file:
        file.header()
    authorization = f"Bearer {user['token']}" if user.get("token") and not file else None
    return Endpoint(cluster["server"].rstrip("/"), tls, file, authorization)


def _by_name(entries: Any, name: str, kind: str) -> dict[str, Any]:
    found = next(entry[kind] for entry in entries if entry["name"] == name)
    return dict(found or {})


def _read_entry(path: Path, entry: dict[str, Any], key: str) -> bytes | None:
    """What KEY-data or KEY stands for; -data goes first, as in kubectl."""
    if data := entry.get(f"{key}-data"):
        return base64.standard_b64decode(data)
    return _read(path.absolute().parent / entry[key]) if entry.get(key) else None


def _user_of(merged: Any, chosen: Any) -> Any:
    name = chosen.safe_get("user")
    entry = merged["users"].get_with_name(name, safe=True) if name and merged.safe_get("users") else None
    return entry["user"] if entry is not None and entry.safe_get("user") else None


def _take(node: Any, key: str) -> bytes | None:
    """Remove KEY-data or KEY from a kubeconfig entry and return what it stands for; -data goes first, as in kubectl."""
    if node is None:
        return None
    data = node.value.pop(f"{key}-data", None)
    name = node.value.pop(key, None)
    if data:
        return base64.standard_b64decode(data)
    return _read(_beside(node, name)) if name else None


def _take_token_file(user: Any) -> TokenFile | None:
    name = user.value.pop("tokenFile", None) if user is not None else None
    if not name:
        return None
    user.value.pop("token", None)
    token = TokenFile(_beside(user, name))
    token.header()
    return token


def _beside(node: Any, name: str) -> Path:
    return Path(node.path or "").absolute().parent / name


def _read(path: str | Path | None) -> bytes | None:
    return Path(path).read_bytes() if path else None
