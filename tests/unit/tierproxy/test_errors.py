from tierproxy.errors import ConfigError, Fault, TierproxyError


def test_config_error_tells_every_fault_with_its_path() -> None:
    error = ConfigError("a.yaml", [Fault("listen.port", "must be a number"), Fault("", "is empty")])
    assert isinstance(error, TierproxyError)
    assert str(error) == "a.yaml: 2 faults\n  listen.port: must be a number\n  is empty"


def test_one_fault_is_not_plural() -> None:
    assert str(ConfigError("a.yaml", [Fault("x", "bad")])) == "a.yaml: 1 fault\n  x: bad"


def test_a_fault_says_its_line_where_it_is_known() -> None:
    assert str(Fault("listen.port", "is bad", 3)) == "listen.port (line 3): is bad"
    assert str(Fault("", "is bad", 3)) == "line 3: is bad"
