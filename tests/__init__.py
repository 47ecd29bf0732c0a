"""tierproxy's tests, demonstration and benchmark."""
