"""The configuration: one YAML file, checked whole, frozen.

`load_config(path)` gives a `Config` or raises `ConfigError` with every fault. Reading order for its story:
source (text → values) → fields (kinds of values) → policies, model (the tree) → rules (across keys) → files → load.
"""

from tierproxy.config.fields import HostPort
from tierproxy.config.load import load_config, load_target, parse_config
from tierproxy.config.model import (
    AdminConfig,
    ArchiveConfig,
    ArchiverConfig,
    BrokerTlsConfig,
    CacheConfig,
    ClusterConfig,
    ColdClientLimit,
    Config,
    DiskCacheConfig,
    GarbageConfig,
    LimitsConfig,
    ListenConfig,
    ListenTlsConfig,
    LogConfig,
    SaslConfig,
    SecurityConfig,
    SniConfig,
)
from tierproxy.config.policies import Keep, PolicyDefaults, SegmentPolicy, TopicPolicy
from tierproxy.config.prices import PricesConfig, StorePrices
from tierproxy.config.rules import warnings
from tierproxy.config.schema import json_schema

__all__ = [
    "AdminConfig",
    "ArchiveConfig",
    "ArchiverConfig",
    "BrokerTlsConfig",
    "CacheConfig",
    "ClusterConfig",
    "ColdClientLimit",
    "Config",
    "DiskCacheConfig",
    "GarbageConfig",
    "HostPort",
    "Keep",
    "LimitsConfig",
    "ListenConfig",
    "ListenTlsConfig",
    "LogConfig",
    "PolicyDefaults",
    "PricesConfig",
    "SaslConfig",
    "SecurityConfig",
    "SegmentPolicy",
    "SniConfig",
    "StorePrices",
    "TopicPolicy",
    "json_schema",
    "load_config",
    "load_target",
    "parse_config",
    "warnings",
]
