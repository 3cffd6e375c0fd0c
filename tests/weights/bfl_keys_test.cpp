#include "models/flux/bfl_keys.h"

#include "core/json.h"
#include "tests/catch.h"
#include "tests/weights/support.h"

namespace xdit::models::test {
namespace {

using namespace weights::test;
using weights::place;
using weights::Placed;
using weights::TensorTable;

TensorTable diffusers_table() {
  TensorTable table;
  for (const int i : {1, 2, 3})
    merge(table,
          weights::read_safetensors(data_folder() / "tiny-dev/transformer" /
                                    fmt::format("diffusion_pytorch_model-0000{}-of-00003.safetensors", i)));
  return table;
}

TensorTable bfl_table() {
  return weights::read_safetensors(data_folder() / "tiny-dev-bfl.safetensors");
}

nlohmann::json tiny_config() {
  return read_json(data_folder() / "tiny-dev/transformer/config.json", ExitCode::kModel);
}

/// The table of the same tensors under other names or in other shapes.
template <typename Change>
TensorTable changed(const TemporaryFolder& folder, Change&& change) {
  std::vector<Tensor> tensors = load(bfl_table());
  for (Tensor& tensor : tensors) change(tensor);
  write(folder.path / "changed.safetensors", safetensors(tensors));
  return weights::read_safetensors(folder.path / "changed.safetensors");
}

void check_same_bytes(const TensorTable& bfl) {
  const TensorTable diffusers = diffusers_table();
  std::vector<weights::Parameter> wanted;
  for (const auto& [name, tensor] : diffusers.tensors)
    wanted.push_back(weights::parameter(name, tensor.shape));
  const std::vector<Placed> from_bfl = place(wanted, bfl, bfl_key_map(bfl));
  const std::vector<Placed> from_diffusers = place(wanted, diffusers, weights::identity_map(diffusers));
  REQUIRE(!wanted.empty());
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    CAPTURE(wanted[i].name);
    CHECK((bytes_of(from_bfl[i], bfl) == bytes_of(from_diffusers[i], diffusers)));
  }
}

TEST_CASE("black-forest-labs' file maps to the bytes of the diffusers folder") {
  check_same_bytes(bfl_table());
}

TEST_CASE("so does a file with model.diffusion_model. before its names") {
  const TemporaryFolder folder;
  const TensorTable table =
      changed(folder, [](Tensor& tensor) { tensor.name.insert(0, "model.diffusion_model."); });
  REQUIRE(is_bfl(table));
  check_same_bytes(table);
  CHECK(bfl_config(table, tiny_config()) == bfl_config(bfl_table(), tiny_config()));
}

TEST_CASE("what is fused in the file and in the network is one piece") {
  const TensorTable bfl = bfl_table();
  const std::string at = "single_transformer_blocks.0.";
  const std::vector wanted{weights::stacked("linear1", {{at + "attn.to_q.weight", {30, 30}},
                                                        {at + "attn.to_k.weight", {30, 30}},
                                                        {at + "attn.to_v.weight", {30, 30}},
                                                        {at + "proj_mlp.weight", {120, 30}}})};
  CHECK(place(wanted, bfl, bfl_key_map(bfl), {""}).front().pieces.size() == 1);
}

TEST_CASE("the layout is known by its names") {
  CHECK(is_bfl(bfl_table()));
  CHECK(!is_bfl(diffusers_table()));
  CHECK(!is_bfl(TensorTable{}));
}

TEST_CASE("shapes give the config that diffusers wrote") {
  nlohmann::json expected = tiny_config();
  expected.erase("_diffusers_version");
  nlohmann::json found = bfl_config(bfl_table(), tiny_config());
  CHECK(found["out_channels"] == found["in_channels"]);
  found.erase("out_channels");
  CHECK(found == expected);
  const TemporaryFolder folder;
  const TensorTable schnell = changed(folder, [](Tensor& tensor) {
    if (tensor.name.starts_with("guidance_in")) tensor.name.insert(0, "x.");
  });
  CHECK(bfl_config(schnell, tiny_config())["guidance_embeds"] == false);
}

/// A file of tensors without data that has what bfl_config looks at.
TensorTable published_sizes(std::int64_t width, std::int64_t head_dim) {
  TensorTable table;
  table.files = {"sizes.safetensors"};
  table.tensors["double_blocks.0.img_attn.norm.key_norm.scale"].shape = {head_dim};
  table.tensors["img_in.weight"].shape = {width, 64};
  table.tensors["txt_in.weight"].shape = {width, 4096};
  table.tensors["vector_in.in_layer.weight"].shape = {width, 768};
  table.tensors["guidance_in.in_layer.weight"].shape = {width, 256};
  table.tensors["final_layer.linear.weight"].shape = {64, width};
  for (int i = 0; i < 19; ++i)
    table.tensors[fmt::format("double_blocks.{}.img_mod.lin.bias", i)].shape = {6 * width};
  for (int i = 0; i < 38; ++i)
    table.tensors[fmt::format("single_blocks.{}.linear1.bias", i)].shape = {7 * width};
  return table;
}

TEST_CASE("rotary axes: the base folder's where heads agree, else the published proportions") {
  const nlohmann::json config = bfl_config(published_sizes(3072, 128), nullptr);
  CHECK(config["axes_dims_rope"] == nlohmann::json{16, 56, 56});
  CHECK(config["num_attention_heads"] == 24);
  CHECK(config["num_layers"] == 19);
  CHECK(config["num_single_layers"] == 38);
  CHECK(config["joint_attention_dim"] == 4096);
  CHECK(config["pooled_projection_dim"] == 768);
  CHECK(config["guidance_embeds"] == true);

  nlohmann::json base{{"attention_head_dim", 128}, {"axes_dims_rope", {32, 48, 48}}};
  CHECK(bfl_config(published_sizes(3072, 128), base)["axes_dims_rope"] == nlohmann::json{32, 48, 48});
  CHECK(bfl_config(published_sizes(3072, 64), base)["axes_dims_rope"] == nlohmann::json{8, 28, 28});
  CHECK_THAT(error_of([&] { (void)bfl_config(published_sizes(300, 10), base); }),
             ContainsSubstring("--base FOLDER"));
  CHECK_THAT(error_of([&] { (void)bfl_config(published_sizes(300, 128), base); }),
             ContainsSubstring("a width of 300 is no multiple of the head size 128"));
}

TEST_CASE("wrong tensors are found by the same errors as in any layout") {
  const TemporaryFolder folder;
  const TensorTable diffusers = diffusers_table();
  std::vector<weights::Parameter> wanted;
  for (const auto& [name, tensor] : diffusers.tensors)
    wanted.push_back(weights::parameter(name, tensor.shape));
  const auto error_with = [&](const std::string& name, auto&& change) {
    const TensorTable table = changed(folder, [&](Tensor& tensor) {
      if (tensor.name == name) change(tensor);
    });
    return error_of([&] { (void)place(wanted, table, bfl_key_map(table)); });
  };
  const auto rename = [](Tensor& tensor) { tensor.name += "x"; };
  const auto flatten = [](Tensor& tensor) {
    tensor.shape = {static_cast<std::int64_t>(tensor.bytes.size() / 2)};
  };
  const auto scalar = [](Tensor& tensor) {
    tensor.shape = {};
    tensor.bytes.resize(2);
  };
  CHECK_THAT(error_with("double_blocks.1.img_attn.qkv.weight", rename),
             ContainsSubstring("tensor \"transformer_blocks.1.attn.to_k.weight\" is missing (and 2 more)"));
  CHECK_THAT(error_with("double_blocks.1.img_attn.qkv.weight", flatten),
             ContainsSubstring("tensor \"double_blocks.1.img_attn.qkv.weight\": expected shape [30, 30] for "
                               "transformer_blocks.1.attn.to_k.weight, found [30] (and 2 more)"));
  CHECK_THAT(error_with("single_blocks.2.linear1.bias", scalar),
             ContainsSubstring("single_blocks.2.linear1.bias"));
  CHECK_THAT(error_with("final_layer.adaLN_modulation.1.weight", scalar),
             ContainsSubstring("norm_out.linear.weight"));
  CHECK_THAT(error_with("img_in.weight", rename), ContainsSubstring("tensor \"img_in.weight\" is missing"));
  CHECK_THAT(error_with("img_in.weight", flatten), ContainsSubstring("expected 2 dimensions"));
  CHECK_THAT(error_with("double_blocks.1.img_mod.lin.bias",
                        [](Tensor& tensor) { tensor.name = "double_blocks.1.lora.weight"; }),
             ContainsSubstring("\"transformer_blocks.1.norm1.linear.bias\" is missing"));
}

TEST_CASE("names that only look like blocks are left alone") {
  for (const char* name :
       {"double_blocks", "double_blocks.", "double_blocks.1", "double_blocks.1.", "double_blocks..",
        "single_blocks.0.linear1", "single_blocks.0..weight", ".weight", "img_in", "img_in.", "",
        "double_blocksx.0.img_mod.lin.weight", "model.diffusion_model.img_in.weight"}) {
    TensorTable table = published_sizes(64, 32);
    const std::size_t keys = bfl_key_map(table).size();
    table.tensors[name].shape = {1};
    CAPTURE(name);
    CHECK(bfl_key_map(table).size() == keys);
    CHECK_NOTHROW(bfl_config(table, nullptr));
  }
}

}  // namespace
}  // namespace xdit::models::test
