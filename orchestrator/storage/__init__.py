"""Where bytes lie: this machine's disks, or a filesystem that pyarrow opens by its URI."""
