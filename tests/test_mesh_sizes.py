"""What a configuration says of a mesh, and how the axes divide devices and arrays."""

import jax
import pytest
from jax.sharding import PartitionSpec

from dwa_jax import mesh_sizes, sharding
from dwa_jax.finetune.config import Config


@pytest.mark.parametrize(
    ("given", "devices", "sizes"),
    [
        ("", 4, (4, 1)),
        ("data=-1", 4, (4, 1)),
        ("fsdp=2", 8, (4, 2)),
        ("fsdp=-1", 8, (1, 8)),
        ("data=2, fsdp=-1", 8, (2, 4)),
        ('{"data": 2, "fsdp": "3"}', 6, (2, 3)),
    ],
)
def test_sizes_make_up_the_devices(given, devices, sizes):
    assert mesh_sizes.parse(given).fitted(devices) == sizes


@pytest.mark.parametrize(
    "given",
    ["data", "data=0", "data=x", "model=2", "data=-1,fsdp=-1", "data=2,data=2", '{"data": ', "-2"],
)
def test_a_mistake_says_what_would_be_right(given):
    with pytest.raises(ValueError, match="must name the axes data and fsdp.*'data=-1,fsdp=2'"):
        mesh_sizes.parse(given)


@pytest.mark.parametrize("given", ["data=3", "fsdp=8", "data=1", "data=2,fsdp=3"])
def test_sizes_that_do_not_make_up_the_devices_are_an_error(given):
    with pytest.raises(ValueError, match="does not make up the 4 devices"):
        mesh_sizes.parse(given).fitted(4)


def test_the_key_takes_a_text_or_a_mapping_and_is_written_one_way():
    assert Config(mesh="fsdp=2").mesh == "data=-1,fsdp=2"
    assert Config.of(mesh={"data": 1, "fsdp": -1}).mesh == "data=1,fsdp=-1"
    assert Config(mesh="").mesh == Config().mesh


def test_the_largest_axis_that_divides_is_split_and_never_that_of_the_layers():
    def of(*shape, **how):
        return sharding.spec_of(shape, 4, **how)

    assert of(64, 256) == PartitionSpec(None, "fsdp")
    assert of(256, 64) == PartitionSpec("fsdp")
    assert of(64, 64) == PartitionSpec(None, "fsdp")
    assert of(64, 255) == PartitionSpec("fsdp")
    assert of(255, 255) == of(4096 * 4) == of(32, 64) == PartitionSpec()
    assert of(1024, 64, 64, stacked=True) == PartitionSpec(None, None, "fsdp")
    assert sharding.spec_of((64, 256), 1) == PartitionSpec()


def test_stacks_are_known_by_their_path():
    mesh = sharding.make_mesh("fsdp=-1", jax.devices()[:2])
    kernel = jax.ShapeDtypeStruct((128, 64, 64), "float32")
    found = sharding.parameter_shardings({"layers": {"a": kernel}, "b": {"c": kernel}}, mesh)
    assert found["layers"]["a"].spec == PartitionSpec(None, None, "fsdp")
    assert found["b"]["c"].spec == PartitionSpec("fsdp")
