"""Memory limits as Linux shows them in files of control groups."""

import pytest

from micromegas_jupyter.core.cgroup import memory_limit_bytes

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("membership", "files", "limit"),
    [
        ("0::/\n", {"memory.max": f"{512 * MIB}\n"}, 512 * MIB),
        ("0::/\n", {"memory.max": "max\n"}, None),
        ("0::/system.slice/lake.service\n", {"system.slice/memory.max": f"{256 * MIB}\n"}, 256 * MIB),
        (
            "0::/a/b\n",
            {"a/b/memory.max": f"{MIB}", "a/memory.max": f"{2 * MIB}", "memory.max": "max"},
            MIB,
        ),
        ("0::/../other\n", {"memory.max": f"{7 * MIB}"}, 7 * MIB),
        (
            "5:cpu:/x\n4:memory:/docker/1\n0::/\n",
            {
                "memory/docker/1/memory.limit_in_bytes": f"{3 * MIB}",
                "memory/memory.limit_in_bytes": f"{(1 << 63) - 4096}",
            },
            3 * MIB,
        ),
        ("0::/\n", {}, None),
        ("nonsense", {"memory.max": "nonsense"}, None),
        ("", {}, None),
    ],
    ids=["container", "unlimited", "parent", "lowest", "outside", "version-1", "no-file", "nonsense", "unknown"],
)
def test_the_lowest_limit_on_the_way_up_counts(tmp_path, membership, files, limit):
    for name, content in files.items():
        (tmp_path / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cgroup" / name).write_text(content)
    (tmp_path / "membership").write_text(membership)

    assert memory_limit_bytes(membership=tmp_path / "membership", mount=tmp_path / "cgroup") == limit
