"""What Ray is told before it is first imported."""

import os
from collections.abc import Mapping

_QUIET: Mapping[str, str] = {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # or every worker builds a new environment from the working folder
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_SCHEDULER_EVENTS": "0",
    "RAY_prestart_worker_first_driver": "0",  # Tune's actors want workers of their own; these would only cost time
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_memory_usage_threshold": "0.98",  # Ray's monitor ends the whole Tune run when it kills a worker
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the driver drains instead
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # the ledger is the memory; Tune's snapshots are never read
    "TUNE_WARN_THRESHOLD_S": "60",
}


def quiet_ray() -> None:
    """Set what the user has not set; to be called before `import ray`."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
