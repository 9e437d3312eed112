"""How many devices each axis of a mesh has, as a configuration says it. Imports no JAX."""

import json
import re
from typing import NamedTuple


class MeshSizes(NamedTuple):
    """Sizes of the axes; one of them may be -1, which takes what the other leaves.

    Attributes:
      data: groups of devices that each hold all parameters, and their part of a batch's rows.
      fsdp: devices of a group, over which parameters and optimizer states are split.
    """

    data: int = -1
    fsdp: int = 1

    def __str__(self) -> str:
        return f"data={self.data},fsdp={self.fsdp}"

    def fitted(self, devices: int) -> "MeshSizes":
        """Returns the sizes for so many devices, none of them -1.

        Raises:
          ValueError: they do not make up all devices.
        """
        known = max(self.data, 1) * max(self.fsdp, 1)
        rest, over = divmod(devices, known)
        if over or (rest != 1 and -1 not in self):
            fits = f"mesh={str(self._replace(data=-1, fsdp=1))!r} fits any number"
            raise ValueError(f"mesh={str(self)!r} does not make up the {devices} devices; {fits}")
        return MeshSizes(*(rest if size == -1 else size for size in self))


def parse(text: str) -> MeshSizes:
    """Reads what a configuration says of the mesh.

    Args:
      text: "data=-1,fsdp=2", or an object in JSON; an axis that is not named has its default.

    Raises:
      ValueError: an axis does not exist, or a size cannot be.
    """
    wrong = (
        f"mesh={text!r:.80} must name the axes data and fsdp, each a number of devices, or -1 "
        "for one of them: 'data=-1,fsdp=2'"
    )
    given: dict = {}
    if text.lstrip().startswith("{"):
        try:
            given = json.loads(text)
        except (ValueError, RecursionError):
            raise ValueError(wrong) from None
    else:
        for part in filter(None, re.split(r"[,\s]+", text.strip())):
            name, _, number = part.partition("=")
            if name in given or not re.fullmatch(r"-1|\d{1,6}", number):
                raise ValueError(wrong)
            given[name] = int(number)
    # The sizes of a mapping have become text on their way here.
    sizes = {
        name: int(size) if re.fullmatch(r"-1|\d{1,6}", str(size)) else 0
        for name, size in given.items()
    }
    if not sizes.keys() <= set(MeshSizes._fields) or 0 in sizes.values():
        raise ValueError(wrong)
    # What is left goes to one of them.
    if sizes.get("fsdp") == -1 and "data" not in sizes:
        sizes["data"] = 1
    found = MeshSizes(**sizes)
    if found == (-1, -1):
        raise ValueError(wrong)
    return found
