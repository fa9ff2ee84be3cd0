"""Triton's interpreter without what it does anew in every call, which is most of its time with tensors as small as the tests have."""
import dataclasses
import os
import subprocess
import sys

import forked
import pytest


class _Stays:
    def restore(self) -> None:
        """Nothing: the process that interprets does nothing else."""


def quicken() -> None:
    """To be called where TRITON_INTERPRET is set, once. What kernels compute stays the same.

    The language is put in place of the compiler's once for each module of kernels, not at each kernel and each function that one calls;
    whole numbers are not looked at for an overflow, as none of such tensors' offsets comes near 2^31; what follows from a shape is found once
    for each shape, and blocks of one shape are not fitted to each other.
    """
    from triton.language import core
    from triton.language.semantic import TritonSemantic
    from triton.runtime import interpreter

    patch, patched, dtype_of, dtypes = interpreter._patch_lang, {}, interpreter._get_np_dtype, {}

    def once(function):
        if id(function.__globals__) not in patched:
            patched[id(function.__globals__)] = function.__globals__, patch(function)
        return _Stays()

    def known(dtype):
        if dtype.name not in dtypes:
            dtypes[dtype.name] = dtype_of(dtype)
        return dtypes[dtype.name]

    shaped, described, fitted, blocks = core.tensor.__init__, core.block_type.__init__, TritonSemantic.broadcast_impl_value, {}

    def tensor(self, handle, type):
        if "of_tensors" not in vars(type):
            shaped(self, handle, type)
            type.of_tensors = {name: value for name, value in vars(self).items() if name != "handle"}
        vars(self).update(type.of_tensors, handle=handle)

    def block(cls, element_ty, shape):
        key = element_ty.name, *(getattr(n, "value", n) for n in shape)
        if key not in blocks:
            blocks[key] = object.__new__(cls)
            described(blocks[key], element_ty, shape)
        return blocks[key]

    def broadcast(self, lhs, rhs):
        if lhs.type.is_block() and rhs.type.is_block() and lhs.type.shape.values == rhs.type.shape.values:
            return lhs, rhs
        return fitted(self, lhs, rhs)

    core.tensor.__init__ = tensor
    core.block_type.__new__, core.block_type.__init__ = block, lambda *known: None
    TritonSemantic.broadcast_impl_value = broadcast
    builder = interpreter.interpreter_builder
    interpreter._patch_lang = once
    interpreter._get_np_dtype = known
    builder.options = dataclasses.replace(builder.options, sanitize_overflow=False)


def everyday(cases: list, some: list, long: bool = True) -> list:
    """The cases as parameters, of which all but `some` take the marker slow where they take long."""
    assert all(case in cases for case in some)
    return [pytest.param(*case, marks=pytest.mark.slow) if long and case not in some else case for case in cases]


def interpreted(file: str, *options: str) -> str:
    """What pytest says of this file in a process of its own, since Triton has to be told before it is first imported."""
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    run = forked.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", file, *options], text=True, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, env=environment)
    assert run.returncode == 0 and " passed" in run.stdout, run.stdout
    return run.stdout
