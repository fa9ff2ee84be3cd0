"""Triton's interpreter without what it does anew in every call, which is most of its time with tensors as small as the tests have."""
import dataclasses


class _Stays:
    def restore(self) -> None:
        """Nothing: the process that interprets does nothing else."""


def quicken() -> None:
    """To be called where TRITON_INTERPRET is set, once. What kernels compute stays the same.

    The language is put in place of the compiler's once for each module of kernels, not at each kernel and each function that one calls;
    and whole numbers are not looked at for an overflow, as none of such tensors' offsets comes near 2^31.
    """
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

    builder = interpreter.interpreter_builder
    interpreter._patch_lang = once
    interpreter._get_np_dtype = known
    builder.options = dataclasses.replace(builder.options, sanitize_overflow=False)
