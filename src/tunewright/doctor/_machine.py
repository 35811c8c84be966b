"""Processors, memory, devices, what they compute in, tools, and disks."""

import platform
import shutil
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import bitsandbytes.functional as four_bits
import psutil
import torch
from huggingface_hub import constants

from tunewright import accel
from tunewright.doctor.findings import Finding
from tunewright.machine import cpu_count, cpu_quota, disk_space
from tunewright.models._room import device, memory_free, ram_free
from tunewright.models.gguf_types import PROGRAM, missing_quantizer, quantizer
from tunewright.train._gpu import gpus

LITTLE_RAM, LITTLE_DISK, NO_DISK = 4e9, 20e9, 1e9
"""Bytes: what a base of half a billion parameters needs; a base of four billions with its exports; the demo."""
NF4_ERROR = 0.15
"""Mean relative error that 4 bits leave of normal numbers, with some room; a wrong kernel is off by far more."""
INSTALL_TORCH = "Install PyTorch for CUDA: https://pytorch.org/get-started/locally"
ON_A_GPU = {
    "flash_attn": "flash-attn, for attn_implementation: flash_attention_2",
    "liger_kernel": "liger-kernel, for accel.liger_kernel",
    "unsloth": "unsloth, for accel.backend: unsloth",
}


def machine() -> Iterator[Finding]:
    """Give every finding on the machine itself."""
    yield processors()
    yield memory()
    where = device()
    yield from devices(where)
    yield speeds(where)
    yield in_4_bits(where)
    yield from tools(where)
    yield from disks()


def processors() -> Finding:
    """Return the finding on processors, as many as this process may use."""
    quota = cpu_quota()
    text = f"{cpu_count()} ({platform.machine()})"
    if quota is not None:
        text += f", as much as the container has of the machine's time: {quota:g}"
    return Finding("machine", "processors", "good", text)


def memory() -> Finding:
    """Return the finding on main memory."""
    free, total = ram_free(), psutil.virtual_memory().total
    text = f"{free / 1e9:,.1f} of {total / 1e9:,.1f} GB free"
    if free >= LITTLE_RAM:
        return Finding("machine", "memory", "good", text)
    fix = "End other programs; the bundled base and the demo take 2 GB."
    return Finding("machine", "memory", "note", text, fix)


def devices(where: str) -> Iterator[Finding]:
    """Give a finding for each card, or one that there is none.

    Args:
        where: Kind of device that PyTorch computes on.
    """
    cards = gpus()
    if where == "cuda":
        for index in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(index)
            text = (
                f"{facts.total_memory / 1e9:,.1f} GB, compute capability {facts.major}.{facts.minor}, "
                f"PyTorch for CUDA {torch.version.cuda}"
            )
            yield Finding("device", facts.name, "good", text)
    elif cards:
        names = ", ".join(card.name for card in cards)
        text = f"{names} is there, and PyTorch {torch.__version__} does not use it"
        yield Finding("device", "GPU", "bad", text, INSTALL_TORCH)
    elif where == "cpu":
        fix = "Small bases train on a CPU; `tunewright plan CONFIG` says how long it takes."
        yield Finding("device", "GPU", "note", "none that PyTorch can use", fix)
    else:
        free = memory_free(where) or 0
        yield Finding("device", where, "good", f"{free / 1e9:,.1f} GB free")


def speeds(where: str) -> Finding:
    """Return the finding on what the device computes in."""
    found = accel.measure_speeds(where)
    chosen = accel.precision("auto", where, found)
    text = (
        f"{found.float32:,.0f} GFLOP/s in float32, {found.bfloat16:,.0f} in bfloat16: "
        f"`train.dtype: auto` is {chosen.value} here"
    )
    return Finding("device", f"speed of the {where}", "good", text)


def in_4_bits(where: str) -> Finding:
    """Return the finding on bitsandbytes: numbers go into 4 bits and come back nearly as they were."""
    name = "4 bits (bitsandbytes)"
    if where == "mps":
        fix = "Load the base in 16 bits: train.load_in_4bit=false"
        return Finding("device", name, "note", "not for MPS", fix)
    given = torch.randn(64, 64, generator=torch.Generator().manual_seed(0)).to(where)
    packed, state = four_bits.quantize_4bit(given, quant_type="nf4")
    back = four_bits.dequantize_4bit(packed, state)
    error = float((back - given).abs().mean() / given.abs().mean())
    text = f"NF4 on the {where} leaves {error:.1%} of a number's size as error"
    if error <= NF4_ERROR:
        return Finding("device", name, "good", text)
    return Finding("device", name, "bad", text, "pip install --force-reinstall bitsandbytes")


def tools(where: str) -> Iterator[Finding]:
    """Give findings on programs and packages that some features need."""
    found = quantizer()
    if found is None:
        (problem,) = missing_quantizer(["Q4_K_M"])
        yield Finding(
            "tools", "K-quants", "note", f"no llama-cpp-python, no {PROGRAM}", problem.fix
        )
    else:
        yield Finding("tools", "K-quants", "good", f"by {found}")
    if shutil.which("ollama"):
        yield Finding("tools", "Ollama", "good", "on the PATH")
    else:
        text, fix = (
            "not on the PATH: models are made for it, and not put into it",
            "https://ollama.com",
        )
        yield Finding("tools", "Ollama", "note", text, fix)
    for module, what in ON_A_GPU.items() if where == "cuda" else ():
        name, _, use = what.partition(", ")
        there = find_spec(module) is not None
        text = f"installed: {use}" if there else f"not installed: {use}"
        fix = "" if there else f"pip install {name}"
        yield Finding("tools", name, "good" if there else "note", text, fix)


def disks() -> Iterator[Finding]:
    """Give a finding for each folder that grows: this one, the Hub's cache, and the one for temporary files."""
    places = {
        "here": Path.cwd(),
        "cache of the Hub": Path(constants.HF_HUB_CACHE),
        "temporary files": Path(tempfile.gettempdir()),
    }
    for name, folder in places.items():
        yield disk(name, folder)


def disk(name: str, folder: Path) -> Finding:
    """Return the finding on a folder, which need not be there yet."""
    space = disk_space(folder)
    text = f"{space.free_bytes / 1e9:,.1f} GB free in {folder}"
    try:
        with tempfile.TemporaryFile(dir=space.path):
            pass
    except OSError as error:
        text = f"{folder} cannot be written: {error.strerror or error}"
        return Finding(
            "disk", name, "bad", text, f"Give yourself the right to write in {space.path}."
        )
    if space.free_bytes < NO_DISK:
        return Finding("disk", name, "bad", text, "Free space: the demo alone takes 1 GB.")
    if space.free_bytes < LITTLE_DISK:
        fix = "A base of 4 billion parameters with its exports takes 20 GB."
        return Finding("disk", name, "note", text, fix)
    return Finding("disk", name, "good", text)
