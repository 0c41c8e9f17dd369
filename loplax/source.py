"""Tells the code of functions from other code, for what a study is known by."""

import functools
import hashlib
import types
from collections.abc import Iterator, Mapping
from typing import Any


def digest(*functions: Any) -> str:
    """Tells functions from others by what they do, and not by where they stand.

    It is made of their bytecode and of all that they refer to in their own package:
    other functions, and the numbers and texts of closures, defaults and modules. So
    comments, names of files and code of other packages do not change it; another
    version of Python may.

    Args:
      *functions: the functions; also tuples of them, as a ``Stream`` or a ``Learner``.

    Returns:
      The digest, as hexadecimal digits.

    Example:
      >>> make = lambda slope: lambda x: slope * x
      >>> digest(make(1.0)) == digest(make(1.0))
      True
      >>> digest(make(1.0)) == digest(make(2.0))
      False
    """
    found = hashlib.blake2b(digest_size=8)
    for each in functions:
        for part in _parts(each, package(each), set()):
            found.update(part.encode() + b"\n")
    return found.hexdigest()


def package(value: Any) -> str:
    """The outermost package that a function, or a partial of one, is from."""
    while isinstance(value, functools.partial):
        value = value.func
    return getattr(value, "__module__", type(value).__module__).partition(".")[0]


def _parts(value: Any, own: str, seen: set[int]) -> Iterator[str]:
    """What makes a value what it is; of what is from elsewhere its name."""
    value = getattr(value, "__wrapped__", value)  # of what jax.jit returns, say
    if isinstance(value, (bool, int, float, str, bytes, type(None))):
        yield repr(value)
    elif isinstance(value, functools.partial):
        yield from _parts((value.func, value.args, value.keywords), own, seen)
    elif isinstance(value, Mapping):
        yield from _parts([*value.items()], own, seen)
    elif isinstance(value, (tuple, list)):
        yield type(value).__name__
        for each in value:
            yield from _parts(each, own, seen)
    elif isinstance(value, types.MethodType):
        yield from _parts(value.__func__, own, seen)
    elif isinstance(value, types.FunctionType) and package(value) == own:
        if id(value) not in seen:
            seen.add(id(value))
            yield from _function(value, own, seen)
    else:
        yield getattr(value, "__qualname__", type(value).__qualname__)


def _function(function: types.FunctionType, own: str, seen: set[int]):
    code = function.__code__
    yield from _bytes(code)
    yield from _parts((function.__defaults__, function.__kwdefaults__), own, seen)
    for cell in function.__closure__ or ():
        yield from _parts(cell.cell_contents, own, seen)
    for name in _names(code):
        yield name
        if name in function.__globals__:
            yield from _parts(function.__globals__[name], own, seen)


def _bytes(code: types.CodeType) -> Iterator[str]:
    """The code and that of the functions in it, without lines and file."""
    yield code.co_code.hex()
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from _bytes(const)
        elif isinstance(const, frozenset):
            yield str(sorted(map(repr, const)))
        else:
            yield repr(const)


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from _names(const)
