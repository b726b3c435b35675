//! What is a fault to the imaginary GPU: without it, that there is none in a log would say nothing.

use crate::gpu::program;

/// Calls of the runtime as a program of CUDA's makes them, right ones and wrong ones.
const CALLS: &str = r#"
import ctypes

class Dim3(ctypes.Structure):
    _fields_ = [(axis, ctypes.c_uint) for axis in "xyz"]

def launch(kernel, threads):
    return cuda.cudaLaunchKernel(kernel, Dim3(1, 1, 1), Dim3(threads, 1, 1), None, ctypes.c_size_t(0), stream)

cuda = ctypes.CDLL("libcudart.so.13")
stream, event, graph, there, pinned = (ctypes.c_void_p() for _ in range(5))
pageable, kernel = ctypes.create_string_buffer(100), ctypes.create_string_buffer(1)
relaxed = ctypes.c_int(2)
TO_DEVICE, TO_HOST, THREAD = 1, 2, 1

# Nothing is wrong with these.
assert cuda.cudaMalloc(ctypes.byref(there), 100) == 0 and cuda.cudaHostAlloc(ctypes.byref(pinned), 100, 0) == 0
assert cuda.cudaMemcpyAsync(there, pageable, 100, TO_DEVICE, None) == 0
assert cuda.cudaStreamCreateWithPriority(ctypes.byref(stream), 1, -3) == 0 and cuda.cudaEventCreate(ctypes.byref(event)) == 0
assert cuda.cudaMemcpyAsync(pinned, there, 100, TO_HOST, stream) == 0 and ctypes.string_at(pinned, 100) == b"\1" * 100
cuda.__cudaRegisterFunction(None, kernel, None, b"_Z6kernelv", -1, *[None] * 5)
assert launch(kernel, 1024) == 0
assert cuda.cudaEventRecord(event, stream) == 0
assert [cuda.cudaEventQuery(event) for _ in range(4)] == [600, 600, 0, 0]
assert cuda.cudaStreamBeginCapture(stream, THREAD) == 0
cuda.cudaThreadExchangeStreamCaptureMode(ctypes.byref(relaxed))
assert cuda.cudaFree(there) == 0 and cuda.cudaMalloc(ctypes.byref(there), 100) == 0
cuda.cudaThreadExchangeStreamCaptureMode(ctypes.byref(relaxed))
assert cuda.cudaMemsetAsync(there, 0, 100, stream) == 0 and cuda.cudaStreamEndCapture(stream, ctypes.byref(graph)) == 0

# Something is with each of these.
cuda.cudaMemcpyAsync(there, pageable, 100, TO_DEVICE, stream)
cuda.cudaMemcpyAsync(there, pinned, 101, TO_DEVICE, stream)
cuda.cudaMemsetAsync(there, 0, 100, None)
assert cuda.cudaFree(pageable) == 1
assert launch(pageable, 1) == 98 and launch(kernel, 1025) == 9
assert cuda.cudaStreamBeginCapture(stream, THREAD) == 0
assert cuda.cudaStreamSynchronize(stream) == 900
assert cuda.cudaStreamEndCapture(stream, ctypes.byref(graph)) == 901
assert cuda.cudaMallocAsync(ctypes.byref(there), 100, stream) == 801
"#;

#[test]
fn what_a_gpu_refuses_is_a_fault_and_all_else_is_not() {
    let run = program("python3", &[], &["-c", CALLS]);
    assert!(run.succeeded, "{}", run.stderr);
    let expected = [
        "copy host to device of 100 bytes by way of pageable memory",
        "copy host to device of 101 bytes by way of pageable memory",
        "copy host to device of 101 bytes beyond the memory that was allocated",
        "memset on the legacy default stream, after this thread entered one of its own",
        "cudaFree of memory that was not allocated",
        "a launch of a kernel that nobody registered",
        "a launch beyond the limits: kernel() <<<(1,1,1), (1025,1,1), 0>>>",
        "cudaStreamSynchronize during a capture",
        "cudaMallocAsync is not part of the imaginary GPU",
    ];
    assert_eq!(run.log.faults(), expected);
    assert!(
        run.log.tells("-- stream 1 has priority -3") && run.log.tells("kernel kernel() <<<(1,1,1), (1024,1,1), 0>>>")
    );
}
