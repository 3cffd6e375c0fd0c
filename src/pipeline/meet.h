#pragma once
#include <chrono>
#include <memory>

#include "comm/job.h"
#include "core/stop.h"
#include "pipeline/rank.h"

namespace xdit::pipeline {

/// The job of the ranks that another launcher started, over c10d's TCPStore at `meeting`; returns when all
/// have it. Runs that follow each other there do not mix. Error(kRank) when they have not met within
/// `timeout`.
[[nodiscard]] std::shared_ptr<const comm::Job> meet(const Meeting& meeting, int rank, int size,
                                                    std::chrono::milliseconds timeout, const StopToken& stop);

}  // namespace xdit::pipeline
