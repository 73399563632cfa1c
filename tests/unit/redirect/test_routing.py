import pytest

from micromegas_jupyter.auth.flows.messages import build_name, digest_of, is_kernel_id, kernel_id_in, state_in

KERNEL_ID = "4f72b256-c23a-4a31-bdf9-f9fbbb6ed380"
RANDOM = "wNuMG1XJNcsT3-CfvHwJHU1yHQRRXZtUR2cruyvtP2A"


def test_a_name_leads_to_its_kernel() -> None:
    assert kernel_id_in(build_name(KERNEL_ID, RANDOM)) == KERNEL_ID


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        f"{KERNEL_ID}.",
        f".{RANDOM}",
        f"{KERNEL_ID}{RANDOM}",
        f"{KERNEL_ID}.{RANDOM[:-1]}",
        f"{KERNEL_ID}.{RANDOM}A",
        f"{KERNEL_ID}.{RANDOM}\n",
        f"../{KERNEL_ID}.{RANDOM}",
        f"{KERNEL_ID}/../x.{RANDOM}",
        f"{'a' * 65}.{RANDOM}",
        f"kérnel.{RANDOM}",
        f"{KERNEL_ID}.{RANDOM[:-1]}٣",
        f"{KERNEL_ID}.x.{RANDOM}",
        "\ud800",
    ],
)
def test_what_is_no_name_leads_nowhere(text: str) -> None:
    assert kernel_id_in(text) is None


@pytest.mark.parametrize(
    ("kernel_id", "random"), [("a b", RANDOM), ("", RANDOM), (KERNEL_ID, "short"), ("a.b", RANDOM)]
)
def test_no_name_is_built_of_other_parts(kernel_id: str, random: str) -> None:
    with pytest.raises(ValueError, match="not the parts of a name"):
        build_name(kernel_id, random)


def test_what_gateways_call_their_kernels_is_a_kernel_id() -> None:
    assert is_kernel_id("spark_python_yarn-1")
    assert not is_kernel_id("a/b")


def test_a_digest_is_sha_256_and_takes_any_text() -> None:
    assert digest_of("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert len(digest_of("\ud800")) == 64


@pytest.mark.parametrize(
    ("query", "state"),
    [
        ("code=c&state=s", "s"),
        ("state=a%2Fb&code=c", "a/b"),
        ("state=", ""),
        ("code=c", None),
        ("", None),
        ("state=s&state=s", None),
        ("state=s" + "&x=" * 50, None),
    ],
)
def test_a_state_counts_where_it_stands_once(query: str, state: str | None) -> None:
    assert state_in(query) == state
