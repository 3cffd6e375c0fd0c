"""What Prometheus reads at /metrics."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary

SECONDS = (0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300)


class Metrics:
    def __init__(self, hour_price: float) -> None:
        """`hour_price`: of a GPU, in any currency."""
        self.hour_price = hour_price
        self.registry = CollectorRegistry()
        more = {"registry": self.registry}
        self.requests = Counter("xdit_requests", "Requests answered", ["path", "status"], **more)
        self.request_seconds = Histogram(
            "xdit_request_seconds", "From a request to its answer", ["path"], buckets=SECONDS, **more
        )
        self.waiting = Gauge("xdit_queue", "Requests that wait for their turn", **more)
        self.queue_seconds = Histogram("xdit_queue_seconds", "Waited for a turn", buckets=SECONDS, **more)
        self.ready = Gauge("xdit_worker_ready", "1: the model is loaded", **more)
        self.starts = Counter("xdit_worker_starts", "Worker processes started", **more)
        self.jobs = Counter("xdit_jobs", "Jobs by how they ended", ["event"], **more)
        self.phase_seconds = Counter("xdit_phase_seconds", "Seconds of jobs by phase", ["phase"], **more)
        self.pictures = Counter("xdit_pictures", "Pictures made", **more)
        self.gpu_seconds = Summary("xdit_picture_gpu_seconds", "GPU-seconds a picture", **more)
        self.cost = Summary("xdit_picture_cost", "Cost a picture: its GPU-seconds at --hour-price", **more)

    def ended(self, event: dict) -> None:
        """A job's last event."""
        self.jobs.labels(event["event"]).inc()
        made = len(event["pictures"])
        self.pictures.inc(made)
        for phase, seconds in event.get("phases", {}).items():
            self.phase_seconds.labels(phase).inc(seconds)
        for _ in range(made if "gpu_seconds" in event else 0):
            self.gpu_seconds.observe(event["gpu_seconds"] / made)
            self.cost.observe(event["gpu_seconds"] / made * self.hour_price / 3600)
