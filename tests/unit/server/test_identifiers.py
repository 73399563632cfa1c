"""Query ids are UUIDs."""

import uuid

from micromegas_jupyter.server.tickets import new_query_id


class FixedRandomness:
    """Implements `seams.Randomness`."""

    def token_urlsafe(self, nbytes: int) -> str:
        return "A" * ((nbytes * 4 + 2) // 3)


def test_a_query_id_is_a_random_uuid() -> None:
    query_id = new_query_id(FixedRandomness())

    assert query_id == "00000000-0000-4000-8000-000000000000"
    assert uuid.UUID(query_id).version == 4
