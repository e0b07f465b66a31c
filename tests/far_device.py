"""A device that is not there: tensors are told apart by where they would lie, as CUDA tells them apart.

A machine without a GPU takes any two tensors together. Within `FarDevice` each remembers whether it was sent away or
was made here (autograd makes some that nobody saw); a sent and a kept one together are refused as on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

FAR = torch.device("xpu")
HERE = torch.device("cpu")
_DEVICE: Any = Tensor.device
_DATA: Any = Tensor.data
GET_DEVICE, SET_DATA = _DEVICE.__get__, _DATA.__set__
PLACES: Any = WeakTensorKeyDictionary()
OF_TWO_PLACES = (Tensor.copy_, SET_DATA, torch._has_compatible_shallow_copy_type)


class FarDevice(TorchFunctionMode):
    """Computes on the CPU what is asked of `FAR`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func == GET_DEVICE:
            return FAR if place_of(args[0]) == FAR else func(*args)
        if func in (Tensor.numpy, Tensor.__array__) and place_of(args[0]) == FAR:
            raise TypeError("can't convert a tensor of a far device to numpy")
        if func == torch.device:
            return func(*args, **kwargs)
        if func == torch._C._nn._parse_to:
            return _aim(None, list(args)), *func(*args, **kwargs)[1:]
        if func in (Tensor.to, Tensor.cpu):
            place = HERE if func == Tensor.cpu else _aim(args[0], [*args[1:], *kwargs.values()])
        else:
            asked = [_place_asked(value) for value in (*args, *kwargs.values())]
            place = next(filter(None, asked), None) or _common(func, args, kwargs)
        result = func(*map(_here, args), **{key: _here(value) for key, value in kwargs.items()})
        if func in (Tensor.to, Tensor.cpu) and result is args[0] and place_of(result) != place:
            result = result.clone()
        for tensor in tensors_in([result, args[0]] if func == SET_DATA else [result]):
            PLACES[tensor] = place
        return result


def place_of(tensor: Tensor) -> torch.device | None:
    """Return where a tensor would lie; None of one that was not seen being made."""
    return PLACES.get(tensor)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield a value's tensors, of tuples, lists and dictionaries too."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from tensors_in(part)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))


def _place_asked(value: Any) -> torch.device | None:
    if isinstance(value, str) and value in (FAR.type, HERE.type):
        value = torch.device(value)
    return torch.device(value.type) if isinstance(value, torch.device) else None


def _aim(tensor: Tensor | None, like: list[Any]) -> torch.device | None:
    """Return where `tensor.to(*like)` lies."""
    for value in like:
        if aim := place_of(value) if isinstance(value, Tensor) else _place_asked(value):
            return aim
    return None if tensor is None else place_of(tensor)


def _here(value: Any) -> Any:
    return HERE if _place_asked(value) else value


def _common(func: Any, args: Any, kwargs: Any) -> torch.device | None:
    """Return where the result of a call lies; numbers (tensors without axes) and indices may come from here."""
    given = list(tensors_in([args, kwargs]))
    if not given:
        return HERE
    far = any(place_of(tensor) == FAR for tensor in given)
    if far and func not in OF_TWO_PLACES:
        strays = [t for t in given if place_of(t) == HERE and (t.ndim or func in (torch.cat, torch.stack))]
        if strays and (func != Tensor.__getitem__ or place_of(args[0]) == HERE):
            raise RuntimeError(
                f"{func.__name__}: expected all tensors to be on the same device, found {FAR} and {HERE}"
            )
    return FAR if far else HERE if any(place_of(tensor) == HERE for tensor in given) else None
