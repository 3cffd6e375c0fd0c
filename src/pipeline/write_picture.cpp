#include "pipeline/write_picture.h"

#include <string>
#include <vector>

#include "core/file.h"
#include "output/metadata.h"
#include "output/png.h"
#include "pipeline/picture.h"

namespace xdit::pipeline {

void write_picture(const RankJob& job, const Course& course, const config::Picture& picture,
                   const at::Tensor& image) {
  const config::RunSpec& spec = course.spec;
  std::vector<output::TextChunk> text;
  if (spec.output.metadata) {
    const models::Model& named = job.named != nullptr ? *job.named : job.model;
    output::PictureRecord record = output::record_of(spec, picture, named.files.name, job.model_hash);
    record.mode = job.plan.grade;
    record.grid = recorded_grid(job.plan);
    text = output::text_chunks(record);
  }
  const std::string png = output::encode_png(to_rgb(image), spec.image.width, spec.image.height, text);
  write_file_atomically(job.paths.at(picture.index), png, spec.output.overwrite);
}

}  // namespace xdit::pipeline
