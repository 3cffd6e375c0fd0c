#include "launch/visible.h"

#include <string>

#include "tests/catch.h"

namespace xdit::launch {
namespace {

// UUIDs' last letters of the GPUs a, b, c and bb that CUDA_VISIBLE_DEVICES leaves.
std::vector<std::string> left(const std::string& names) {
  std::vector<parallel::Gpu> all;
  for (const char* uuid : {"GPU-a1", "GPU-b1", "GPU-c1", "GPU-b2"}) all.push_back({.name = {}, .uuid = uuid});
  std::vector<std::string> uuids;
  for (const parallel::Gpu& gpu : visible_gpus(all, names)) uuids.push_back(gpu.uuid.substr(4));
  return uuids;
}

using Left = std::vector<std::string>;

}  // namespace

TEST_CASE("CUDA_VISIBLE_DEVICES: numbers or UUIDs, in their order") {
  CHECK(left("0,1,2,3") == Left{"a1", "b1", "c1", "b2"});
  CHECK(left("2,0") == Left{"c1", "a1"});
  CHECK(left(" 3 , 1 ") == Left{"b2", "b1"});
  CHECK(left("1st,2nd") == Left{"b1", "c1"});  // as strtoul reads
  CHECK(left("GPU-b2,GPU-a1") == Left{"b2", "a1"});
  CHECK(left("GPU-c") == Left{"c1"});
  CHECK(left("0,") == Left{"a1"});
}

TEST_CASE("what names no GPU ends the list of CUDA_VISIBLE_DEVICES") {
  for (const char* none :
       {"", " ", ",", "-1", "4", "99999999999999999999", "none", "NoDevFiles", "void", "GPU-d",
        "GPU-b",  // of two
        "GPU-", "a1", "MIG-0b2c", "MIG-GPU-a1/1/0", "-1,0", "4,0", ",0", "all"}) {
    CAPTURE(none);
    CHECK(left(none).empty());
  }
  CHECK(left("1,-1,0") == Left{"b1"});
  CHECK(left("1,4,0") == Left{"b1"});
  CHECK(left("1,,0") == Left{"b1"});
  CHECK(left("1,GPU-a1,0") == Left{"b1"});
  CHECK(left("GPU-a1,1") == Left{"a1"});
  CHECK(left("GPU-a1,MIG-GPU-b1/0/0,GPU-c1") == Left{"a1"});
}

TEST_CASE("a GPU that comes twice in CUDA_VISIBLE_DEVICES leaves none") {
  for (const char* twice : {"0,0", "0,1,0", "GPU-a1,GPU-a", "2,1,2,0"}) CHECK(left(twice).empty());
  CHECK(left("0,1,-1,0") == Left{"a1", "b1"});  // it has ended before
}

}  // namespace xdit::launch
