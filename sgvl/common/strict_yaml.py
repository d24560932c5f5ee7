"""A YAML loader for settings: repeated keys and aliases are errors, and dates are text."""

import yaml


class Loader(yaml.SafeLoader):
    """SafeLoader that refuses repeated keys, and aliases, a few of which can fill the memory."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "aliases are not allowed", mark)
        return super().compose_node(parent, index)

    yaml_implicit_resolvers = {
        first: [(tag, form) for tag, form in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }  # papermill reads dates as text, too

    def construct_object(self, node, deep=False):
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, AttributeError, TypeError) as error:  # as in `!!bool maybe`
            problem = f"no value of {node.tag.rpartition(':')[2]}: {error}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None

    def construct_mapping(self, node, deep=False):
        seen = set()
        pairs = node.value if isinstance(node, yaml.MappingNode) else []  # SafeLoader names it
        for key, _ in pairs:
            if str(key.value) in seen:
                problem = f"{key.value} is set twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)
