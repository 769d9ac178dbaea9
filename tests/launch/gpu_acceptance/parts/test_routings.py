"""The acceptance trains every hash key and every router that the project has."""

from launch.gpu_acceptance.parts.routings import ROUTINGS
from models.choices import HASH_KEYS, ROUTERS


def test_every_key_and_every_router_is_trained():
    assert {key for fields in ROUTINGS.values() for key in fields.get("hash_keys", [])} == set(HASH_KEYS)
    assert {fields.get("router", "hash") for fields in ROUTINGS.values()} == set(ROUTERS)
