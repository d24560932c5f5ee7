pytest_plugins = ["published"]  # its fixtures serve several test files
