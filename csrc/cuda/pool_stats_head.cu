// Launching the update from features on Hopper: tensor maps, clusters, shared memory.
#include <cuda_runtime.h>
#include <dlfcn.h>

#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <tuple>

#include "pool_stats_head.cuh"
#include "pool_stats_head.h"

namespace dynal {
namespace pool_stats {
namespace hopper {
namespace {

template <class Element>
__global__ void __launch_bounds__(kThreads, 1)
    head_kernel(const __grid_constant__ Parameters p, const __grid_constant__ TensorMap features,
                const __grid_constant__ TensorMap weights) {
  update_from_features<Element>(p, features, weights);
}

void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) {
    throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
  }
}

// Looked up at run time, so that the extension does not link with the driver.
decltype(&cuTensorMapEncodeTiled) encoder() {
  static const auto function = [] {
    void* driver = dlopen("libcuda.so.1", RTLD_LAZY);
    void* symbol = driver ? dlsym(driver, "cuTensorMapEncodeTiled") : nullptr;
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(symbol);
  }();
  if (!function) throw std::runtime_error("the CUDA driver has no cuTensorMapEncodeTiled");
  return function;
}

// A matrix (rows, columns) of 16-bit elements in boxes of (box_rows, box_columns).
TensorMap map_of(const void* matrix, int64_t rows, int64_t columns, int box_rows, int box_columns) {
  TensorMap map;
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(columns) * 2};
  const cuuint32_t box[2] = {static_cast<cuuint32_t>(box_columns),
                             static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t steps[2] = {1, 1};
  const CUresult result =
      encoder()(&map, CU_TENSOR_MAP_DATA_TYPE_UINT16, 2, const_cast<void*>(matrix), sizes, strides,
                box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                box_columns == 64 ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_64B,
                CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    throw std::runtime_error("cuTensorMapEncodeTiled failed with error " + std::to_string(result));
  }
  return map;
}

// A launch of clusters of `blocks` blocks.
struct Launch {
  cudaLaunchAttribute cluster = {};
  cudaLaunchConfig_t config = {};

  Launch(int blocks, int64_t shared) {
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim = {static_cast<unsigned>(blocks), 1, 1};
    config.gridDim = dim3(blocks);
    config.blockDim = dim3(kThreads);
    config.dynamicSmemBytes = shared;
    config.attrs = &cluster;
    config.numAttrs = 1;
  }
  Launch(const Launch&) = delete;
};

// The number of clusters that the device runs at once; 0 if it cannot run any.
template <class Element>
int clusters_at_once(int blocks, int64_t shared) {
  static std::mutex mutex;
  static std::map<std::tuple<int, int, int64_t>, int> known;
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess) return 0;  // for example, the driver is too old
  const std::lock_guard<std::mutex> lock(mutex);
  const auto [entry, is_new] = known.try_emplace({device, blocks, shared}, 0);
  if (is_new) {
    const auto kernel = &head_kernel<Element>;
    const Launch launch(blocks, shared);
    const bool answered =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedLimit) ==
            cudaSuccess &&
        cudaOccupancyMaxActiveClusters(&entry->second, kernel, &launch.config) == cudaSuccess;
    if (!answered) {
      cudaGetLastError();  // clears the error, so that later calls do not report it
      entry->second = 0;
    }
  }
  return entry->second;
}

template <class Element>
void launch(const Parameters& p, const Batch& batch, cudaStream_t stream) {
  const int64_t width = batch.head.width, tiles = (p.ids.rows + kRows - 1) / kRows;
  const int64_t shared = shared_bytes(width, p.stages);
  const int64_t at_once = clusters_at_once<Element>(p.blocks, shared);
  if (at_once == 0) throw std::runtime_error("the device cannot run the clusters of this head");
  Launch launch(p.blocks, shared);
  launch.config.gridDim = dim3(p.blocks * (tiles < at_once ? tiles : at_once));
  launch.config.stream = stream;
  const TensorMap features = map_of(batch.head.features, p.ids.rows, width, kRows, kFeatureDepth);
  const TensorMap weights =
      map_of(batch.head.weight, p.state.classes, width, kClasses, kWeightDepth);
  check(cudaLaunchKernelEx(&launch.config, head_kernel<Element>, p, features, weights),
        "cudaLaunchKernelEx");
}

}  // namespace

bool head_fits(int64_t classes, int64_t width) {
  if (!fits(classes, width)) return false;
  return clusters_at_once<Bf16>(blocks_for(classes), shared_bytes(width, stages_for(width))) > 0;
}

Resources head_resources(int64_t width) {
  return {kThreads / 32, shared_bytes(width, stages_for(width))};
}

void update_from_features(const State& state, const Batch& batch, void* stream) {
  if (batch.rows == 0) return;
  const Parameters p(state, batch, stages_for(batch.head.width));
  const auto where = static_cast<cudaStream_t>(stream);
  if (batch.dtype == Dtype::bfloat16) {
    launch<Bf16>(p, batch, where);
  } else {
    launch<F16>(p, batch, where);
  }
}

}  // namespace hopper
}  // namespace pool_stats
}  // namespace dynal
