"""Texts of real errors of missing memory, and the settings of a large run."""

import torch

from experiments.remedies import MemorySettings

GIB = 2**30
CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")
GPU_TEXT = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 16.00 GiB of "
    "which 1.25 GiB is free. Including non-PyTorch memory, this process has 14.50 GiB memory in "
    "use. Of the allocated memory 9.08 GiB is allocated by PyTorch, and 4.84 GiB is reserved by "
    "PyTorch but unallocated."
)
CROWDED_TEXT = (
    "CUDA out of memory. Tried to allocate 1.95 GiB. GPU 0 has a total capacity of 14.57 GiB of "
    "which 1.58 GiB is free. Process 2493055 has 12.02 GiB memory in use. Including non-PyTorch "
    "memory, this process has 966.00 MiB memory in use."
)
LINUX_TEXT = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate 4294967296 bytes. Error code 12 (Cannot allocate memory)"
)
WINDOWS_TEXT = (
    "[enforce fail at alloc_cpu.cpp:116] data. DefaultCPUAllocator: not enough memory: you tried "
    "to allocate 1610612736 bytes."
)
NUMPY_TEXT = (
    "Caught _ArrayMemoryError in DataLoader worker process 0.\nOriginal Traceback ...\n"
    "Unable to allocate 3.00 GiB for an array with shape (3221225472,) and data type uint8"
)
WORKER_TEXT = "Caught MemoryError in DataLoader worker process 0.\nOriginal Traceback ..."

GUIDE = MemorySettings(
    batch_size=8,
    learning_rate=2.5e-4,
    optimizer="sgd",
    scales=(256, 384),
    output_stride=8,
    precision="fp32",
    backbone="resnet101",
    bf16_supported=True,
    num_workers=4,
    cache="ram",
)
SMALLEST = MemorySettings(
    batch_size=2,
    learning_rate=2.5e-4,
    optimizer="sgd",
    scales=(256, 256),
    output_stride=16,
    precision="bf16",
    backbone="resnet18",
)
