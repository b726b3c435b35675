"""The kernels of native/kernels.cu as functions of torch's tensors. KERNELS_LIBRARY names the library that they are built into."""

import ctypes
import os

import torch
from torch import Tensor

KINDS = {torch.half: 5, torch.float: 6, torch.bfloat16: 15}


class Image(ctypes.Structure):
    """As in native/kernels.h."""

    _fields_ = [("rows", ctypes.c_int64), ("pixels", ctypes.c_int64), ("channels", ctypes.c_int64), ("kind", ctypes.c_int32)]


class GroupNorm(ctypes.Structure):
    """As in native/kernels.h."""

    _fields_ = [
        ("image", Image), ("x", ctypes.c_void_p), ("lead", ctypes.c_void_p), ("shift", ctypes.c_void_p), ("shift_stride", ctypes.c_int64),
        ("weight", ctypes.c_void_p), ("bias", ctypes.c_void_p), ("y", ctypes.c_void_p), ("partial", ctypes.c_void_p),
        ("groups", ctypes.c_int64), ("epsilon", ctypes.c_float), ("silu", ctypes.c_int32),
    ]  # fmt: skip


class AddLayerNorm(ctypes.Structure):
    """As in native/kernels.h."""

    _fields_ = [
        ("rows", ctypes.c_int64), ("width", ctypes.c_int64), ("kind", ctypes.c_int32), ("x", ctypes.c_void_p), ("more", ctypes.c_void_p),
        ("weight", ctypes.c_void_p), ("bias", ctypes.c_void_p), ("sum", ctypes.c_void_p), ("y", ctypes.c_void_p), ("epsilon", ctypes.c_float),
    ]  # fmt: skip


kernels = ctypes.CDLL(os.environ["KERNELS_LIBRARY"])
kernels.latentd_kernel_partials.restype = ctypes.c_int64


def group_norm(x: Tensor, weight: Tensor, bias: Tensor, groups: int, lead: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
    """With SiLU after it."""
    whole = as_image(x)
    count = kernels.latentd_kernel_partials(ctypes.byref(whole), ctypes.c_int64(groups))
    y, partial = torch.empty_like(x), torch.empty(max(count, 1), device="cuda")
    norm = GroupNorm(
        whole, address(x), address(lead), address(shift), 0 if shift is None else shift.stride(0), address(weight), address(bias), address(y),
        address(partial), groups, 1e-5, 1,
    )  # fmt: skip
    check(kernels.latentd_kernel_group_norm(ctypes.byref(norm), stream()))
    return y


def add_layer_norm(x: Tensor, more: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Of the sum, which is made besides."""
    total, y = torch.empty_like(x), torch.empty_like(x)
    norm = AddLayerNorm(
        x.shape[0], x.shape[1], KINDS[x.dtype], address(x), address(more), address(weight), address(bias), address(total), address(y), 1e-5
    )
    check(kernels.latentd_kernel_add_layer_norm(ctypes.byref(norm), stream()))
    return y


def geglu(x: Tensor) -> Tensor:
    """Of rows of numbers and their gates."""
    rows, width = x.shape[0], x.shape[1] // 2
    y = torch.empty(rows, width, device="cuda", dtype=x.dtype)
    check(kernels.latentd_kernel_geglu(ctypes.byref(Image(rows, 1, width, KINDS[x.dtype])), pointer(x), pointer(y), stream()))
    return y


def add_residual(y: Tensor, x: Tensor, bias: Tensor) -> Tensor:
    """Adds image and bias to y."""
    check(kernels.latentd_kernel_add_residual(ctypes.byref(as_image(y)), pointer(x), pointer(bias), None, pointer(y), stream()))
    return y


def as_image(x: Tensor) -> Image:
    """Of a tensor whose channels are last."""
    rows, channels, height, width = x.shape
    return Image(rows, height * width, channels, KINDS[x.dtype])


def address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def pointer(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def stream() -> ctypes.c_void_p:
    return ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)


def check(status: int) -> None:
    if status != 0:
        raise RuntimeError(f"a kernel gave CUDA's status {status}")
