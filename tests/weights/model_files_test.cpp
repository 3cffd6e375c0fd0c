#include "weights/model_files.h"

#include <algorithm>

#include "tests/catch.h"
#include "tests/weights/support.h"

namespace xdit::weights::test {
namespace {

const fs::path kTinyDev = data_folder() / "tiny-dev";
const fs::path kTinySchnell = data_folder() / "tiny-schnell";
const fs::path kBfl = data_folder() / "tiny-dev-bfl.safetensors";

/// A copy of a model, to damage.
struct Copy {
  TemporaryFolder folder;
  fs::path model;
  explicit Copy(const fs::path& from) : model(folder.path / from.filename()) {
    fs::copy(from, model, fs::copy_options::recursive);
  }
  [[nodiscard]] std::string error(const fs::path& base = {}, const fs::path& tokenizers = {}) const {
    return error_of([&] { (void)open_model(model, base, tokenizers); });
  }
  void replace(const fs::path& file, const std::string& old_text, const std::string& new_text) const {
    std::string text = read(model / file);
    const std::size_t at = text.find(old_text);
    REQUIRE(at != std::string::npos);
    write(model / file, text.replace(at, old_text.size(), new_text));
  }
};

const std::string kIndex = "transformer/diffusion_pytorch_model.safetensors.index.json";

TEST_CASE("a diffusers folder is opened: shards, single files, configs, tokenizers") {
  const ModelFiles files = open_model(kTinyDev);
  CHECK(files.name == "tiny-dev");
  CHECK(files.class_name == "FluxPipeline");
  CHECK(files.scheduler_config["use_dynamic_shifting"] == true);
  CHECK(files.tokenizers.at("tokenizer") == kTinyDev / "tokenizer");
  CHECK(files.tokenizers.at("tokenizer_2") == kTinyDev / "tokenizer_2");
  CHECK(!files.single_file);
  REQUIRE(files.components.size() == 4);
  const Component& transformer = files.components.at("transformer");
  CHECK(transformer.class_name == "FluxTransformer2DModel");
  CHECK(transformer.config["num_layers"] == 2);
  CHECK(transformer.table.files.size() == 3);
  CHECK(transformer.table.metadata.at("format") == "pt");
  CHECK(transformer.table.tensors.at("x_embedder.weight").shape == std::vector<std::int64_t>{30, 64});
  CHECK(transformer.keys.size() == transformer.table.tensors.size());
  CHECK(files.components.at("text_encoder_2").table.files.size() == 2);
  CHECK(files.components.at("vae").table.files.size() == 1);
}

TEST_CASE("variants serve where there is no full precision, which goes first") {
  const ModelFiles files = open_model(kTinySchnell);
  CHECK(files.components.at("transformer").table.files.size() == 2);
  CHECK(files.components.at("vae").table.files.front().filename() ==
        "diffusion_pytorch_model.fp16.safetensors");
  CHECK(files.components.at("text_encoder").table.files.front().filename() == "model.fp16.safetensors");

  const Copy copy(kTinySchnell);
  fs::copy(kTinyDev / "vae/diffusion_pytorch_model.safetensors",
           copy.model / "vae/diffusion_pytorch_model.safetensors");
  CHECK(open_model(copy.model).components.at("vae").table.files.front().filename() ==
        "diffusion_pytorch_model.safetensors");
}

TEST_CASE("a single file takes the rest from its own folder or from base") {
  const ModelFiles files = open_model(kBfl, kTinyDev);
  CHECK(files.path == kBfl);
  CHECK(files.name == "tiny-dev-bfl");
  REQUIRE(files.single_file);
  CHECK(files.single_file->tensors.contains("img_in.weight"));
  CHECK(files.components.at("vae").table.files.size() == 1);

  CHECK_THAT(error_of([] { (void)open_model(kBfl); }), ContainsSubstring("--base FOLDER"));

  const Copy copy(kTinyDev);
  fs::copy(kBfl, copy.model / "flux.safetensors");
  for (const auto& entry : fs::directory_iterator(copy.model / "transformer"))
    if (entry.path().filename() != "config.json") fs::remove(entry.path());
  CHECK(open_model(copy.model / "flux.safetensors").components.at("transformer").config["num_layers"] == 2);
  CHECK_THAT(copy.error(),
             ContainsSubstring("no .safetensors file"));  // without the single file it is needed
  fs::remove_all(copy.model / "transformer");
  CHECK(!open_model(copy.model / "flux.safetensors").components.contains("transformer"));
  CHECK_THAT(copy.error(), ContainsSubstring("transformer/config.json"));
}

TEST_CASE("tokenizers may come from elsewhere") {
  const Copy copy(kTinyDev);
  fs::remove_all(copy.model / "tokenizer_2");
  CHECK_THAT(copy.error(), ContainsSubstring("--tokenizers FOLDER"));
  CHECK(open_model(copy.model, {}, kTinySchnell).tokenizers.at("tokenizer_2") ==
        kTinySchnell / "tokenizer_2");
  CHECK_THAT(copy.error({}, copy.folder.path), ContainsSubstring((copy.folder.path / "tokenizer").string()));
}

TEST_CASE("a shard's name cannot leave its folder") {
  const std::string shard = "diffusion_pytorch_model-00002-of-00003.safetensors";
  for (const std::string name :
       {"../../outside.safetensors", "/etc/outside.safetensors", "sub/outside.safetensors", "..", ".",
        ".hidden.safetensors", R"(a\\outside.safetensors)", "", "model.bin", R"(a\u0000.safetensors)"}) {
    const Copy copy(kTinyDev);
    write(copy.folder.path / "outside.safetensors", read(copy.model / "transformer" / shard));
    copy.replace(kIndex, shard, name);
    CAPTURE(name);
    CHECK_THAT(copy.error(), ContainsSubstring("expected the name of a .safetensors file in this folder"));
  }
}

TEST_CASE("an index and its shards must agree") {
  const std::string shard = "diffusion_pytorch_model-00002-of-00003.safetensors";
  {
    const Copy copy(kTinyDev);
    fs::remove(copy.model / "transformer" / shard);
    CHECK_THAT(copy.error(), ContainsSubstring("1 of its 3 files are not there: \"" + shard));
  }
  {
    const Copy copy(kTinyDev);
    copy.replace(kIndex, shard, "diffusion_pytorch_model-00003-of-00003.safetensors");
    CHECK_THAT(copy.error(), ContainsSubstring("which does not hold it"));
  }
  {
    const Copy copy(kTinyDev);
    fs::copy(copy.model / "transformer" / shard, copy.model / "transformer/again.safetensors");
    copy.replace(kIndex, shard, "again.safetensors");
    CHECK_THAT(copy.error(), ContainsSubstring("is also in"));
  }
  for (const std::string text : {"[]", "{}", R"({"weight_map":[]})", R"({"weight_map":{"a":1}})", "{"}) {
    const Copy copy(kTinyDev);
    write(copy.model / kIndex, text);
    CHECK_THAT(copy.error(), ContainsSubstring(kIndex));
  }
}

TEST_CASE("folders that are no model say what to type") {
  const Copy copy(kTinyDev);
  CHECK_THAT(error_of([&] { (void)open_model(copy.model / "vae"); }),
             ContainsSubstring("-m " + copy.model.string()));
  fs::remove(copy.model / "model_index.json");
  write(copy.model / "flux.safetensors", "");
  CHECK_THAT(copy.error(), ContainsSubstring("-m " + (copy.model / "flux.safetensors").string()));
}

TEST_CASE("configs of wrong kinds are refused") {
  for (const auto& [file, text] : std::vector<std::pair<std::string, std::string>>{
           {"model_index.json", "[]"},
           {"model_index.json", "{}"},
           {"model_index.json", R"({"_class_name":1})"},
           {"vae/config.json", "null"},
           {"vae/config.json", R"({"a":1,"a":2})"},
           {"scheduler/scheduler_config.json", "3"},
       }) {
    const Copy copy(kTinyDev);
    write(copy.model / file, text);
    CHECK_THAT(copy.error(), ContainsSubstring(file));
  }
  const Copy copy(kTinyDev);  // parts that are off, and settings
  copy.replace("model_index.json", "{",
               R"({"image_encoder":[null,null],"flag":true,"list":[1,2],"text_encoder_3":3,)");
  CHECK(copy.error().empty());
}

TEST_CASE("pickles, GGUF and quantised weights are refused by name with how to convert") {
  const TemporaryFolder folder;
  write(folder.path / "flux.ckpt", "PK\x03\x04" + std::string(100, 'x'));
  CHECK_THAT(error_of([&] { (void)open_model(folder.path / "flux.ckpt", kTinyDev); }),
             ContainsSubstring("save_file"));
  write(folder.path / "flux.gguf", "GGUF" + std::string(100, '\3'));
  CHECK_THAT(error_of([&] { (void)open_model(folder.path / "flux.gguf", kTinyDev); }),
             ContainsSubstring("GGUF"));
  write(folder.path / "nf4.safetensors",
        safetensors({{"img_in.weight.quant_state.bitsandbytes__nf4", DType::kU8, {1}, "x"}}));
  CHECK_THAT(error_of([&] { (void)open_model(folder.path / "nf4.safetensors", kTinyDev); }),
             ContainsSubstring("quantised by \"bitsandbytes\""));
  {
    const Copy copy(kTinyDev);
    fs::rename(copy.model / "vae/diffusion_pytorch_model.safetensors",
               copy.model / "vae/diffusion_pytorch_model.bin");
    const std::string error = copy.error();
    CHECK_THAT(error, ContainsSubstring("pickle"));
    CHECK_THAT(error, ContainsSubstring("save_pretrained"));
    fs::rename(copy.model / "vae/diffusion_pytorch_model.bin", copy.model / "vae/vae.gguf");
    write(copy.model / "vae/vae.gguf", "GGUF" + std::string(100, '\3'));
    CHECK_THAT(copy.error(), ContainsSubstring("GGUF"));
  }
  {
    const Copy copy(kTinyDev);
    copy.replace("transformer/config.json", "{",
                 R"({"quantization_config":{"quant_method":"bitsandbytes"},)");
    CHECK_THAT(copy.error(), ContainsSubstring("quantised by \"bitsandbytes\""));
    CHECK_THAT(copy.error(), ContainsSubstring("dequantize"));
  }
}

TEST_CASE("one safetensors file of any name serves, several do not") {
  const Copy copy(kTinyDev);
  fs::rename(copy.model / "vae/diffusion_pytorch_model.safetensors", copy.model / "vae/ae.safetensors");
  CHECK(open_model(copy.model).components.at("vae").table.files.front().filename() == "ae.safetensors");
  fs::copy(copy.model / "vae/ae.safetensors", copy.model / "vae/b.safetensors");
  CHECK_THAT(copy.error(), ContainsSubstring("found ae.safetensors, b.safetensors"));
  const Copy shard(kTinyDev);
  fs::remove(shard.model / kIndex);
  fs::remove(shard.model / "transformer/diffusion_pytorch_model-00001-of-00003.safetensors");
  fs::remove(shard.model / "transformer/diffusion_pytorch_model-00002-of-00003.safetensors");
  CHECK_THAT(shard.error(),
             ContainsSubstring("or the index of one, found diffusion_pytorch_model-00003-of-00003"));
}

TEST_CASE("the model hash depends on weights and configs, not on paths or shards") {
  const std::string hash = model_hash(open_model(kTinyDev));
  CHECK(hash.size() == 64);
  CHECK(hash == model_hash(open_model(kTinyDev)));
  CHECK(hash != model_hash(open_model(kTinySchnell)));

  const Copy copy(kTinyDev);
  copy.replace("vae/config.json", "{", R"({"_name_or_path":"/somewhere",)");
  const TensorTable shards = open_model(copy.model).components.at("transformer").table;
  const fs::path one = copy.model / "transformer/diffusion_pytorch_model.safetensors";
  std::vector<Tensor> tensors = load(shards);
  const auto write_one = [&] {
    std::vector<Tensor> reversed(tensors.rbegin(), tensors.rend());
    write(one, safetensors(reversed));
    return model_hash(open_model(copy.model));
  };
  fs::remove(copy.model / kIndex);
  CHECK(write_one() == hash);

  for (Tensor& tensor : tensors) {  // the middle of every tensor is in the sample
    char& byte = tensor.bytes.at(tensor.bytes.size() / 2);
    byte ^= 1;
    CAPTURE(tensor.name);
    CHECK(write_one() != hash);
    byte ^= 1;
  }
  std::swap(tensors[0].name, tensors[1].name);
  CHECK(write_one() != hash);
  std::swap(tensors[0].name, tensors[1].name);
  const auto wide =
      std::find_if(tensors.begin(), tensors.end(), [](const Tensor& t) { return t.shape.size() == 2; });
  std::swap(wide->shape[0], wide->shape[1]);
  CHECK(write_one() != hash);
  std::swap(wide->shape[0], wide->shape[1]);
  wide->dtype = DType::kF16;
  CHECK(write_one() != hash);
  wide->dtype = DType::kBF16;
  CHECK(write_one() == hash);
  copy.replace("scheduler/scheduler_config.json", "3.0", "2.5");
  CHECK(write_one() != hash);
}

TEST_CASE("the hash of a whole file is SHA-256") {
  const TemporaryFolder folder;
  write(folder.path / "abc", "abc");  // FIPS 180-2, B.1
  CHECK(file_sha256(folder.path / "abc") ==
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  write(folder.path / "a", std::string(1'000'000, 'a'));  // B.3
  CHECK(file_sha256(folder.path / "a") == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  write(folder.path / "empty", "");
  CHECK(file_sha256(folder.path / "empty") ==
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

}  // namespace
}  // namespace xdit::weights::test
