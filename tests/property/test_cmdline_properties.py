"""Whatever the running kernel was told, the next one's line keeps it and says our words exactly once."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from careen.agent.linux.cmdline import NextBoot, compose_line, find_word, split_words

PLAIN = st.from_regex(r"[a-z][a-z0-9_.]{0,12}(=[A-Za-z0-9/:,=@-]{0,12})?", fullmatch=True)
QUOTED = st.from_regex(r'[a-z]{1,8}="[a-z =]{0,12}"', fullmatch=True)
OURS = st.sampled_from(
    ["careen.slot=A", "careen.usrhash=00", "careen.order=old", "panic=0", "oops=panic", "usrhash=1", "mount.usr=x"]
)
WORDS = st.lists(st.one_of(PLAIN, QUOTED, OURS), max_size=20)
INIT = st.lists(st.from_regex(r"[a-z0-9]{1,6}", fullmatch=True), max_size=3)
NEXT = st.builds(
    NextBoot,
    st.sampled_from("AB"),
    st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
    st.sampled_from(["kexec", "firmware"]),
    st.from_regex(r"[a-z0-9-]{0,20}", fullmatch=True),
    st.integers(0, 600),
)
STALE = ("careen.", "verity.usr")
STALE_KEYS = {"usr", "usrhash", "usrflags", "usrfstype", "initrd"}


def key_of(word: str) -> str:
    return word.partition("=")[0].replace("-", "_")


@given(WORDS, INIT, NEXT)
def test_our_words_are_there_once_and_all_others_stay_in_their_order(
    words: list[str], init: list[str], following: NextBoot
) -> None:
    running = " ".join([*words, "--", *init])
    made = split_words(compose_line(running, following))
    at = made.index("--")
    assert made[at + 1 :] == init
    kernel, ours = made[:at], following.words
    assert tuple(kernel[len(kernel) - len(ours) :]) == ours
    counts = Counter(map(key_of, kernel))
    assert all(counts[key_of(word)] == 1 for word in ours)
    keys = {key_of(word) for word in ours} | STALE_KEYS
    kept = [
        word for word in words if key_of(word) not in keys and not word.startswith(STALE) and "mount.usr" not in word
    ]
    assert kernel[: len(kernel) - len(ours)] == kept


@given(WORDS, NEXT, NEXT)
def test_composing_again_says_only_the_last(words: list[str], first: NextBoot, second: NextBoot) -> None:
    twice = compose_line(compose_line(" ".join(words), first), second)
    for word in second.words:
        key, _, value = word.partition("=")
        assert find_word(twice, key) == value
    assert compose_line(twice, second) == twice
