"""Values that are kept while there is room for them."""

from sgvl.common.kept import Kept


def test_values_are_made_once_and_kept_up_to_the_bound():
    kept, made = Kept(10, len), []

    def make(items):
        made.append(items)
        return [item.upper() for item in items]

    assert kept.of([1, 2, 1], ["abcd", "efgh", "abcd"], make) == ["ABCD", "EFGH", "ABCD"]
    assert kept.of([2, 3], ["never read", "ijk"], make) == ["EFGH", "IJK"]
    assert kept.of([3, 4, 1], ["ijk", "lm", ""], make) == ["IJK", "LM", "ABCD"]
    assert kept.of([4], [""], make) == ["LM"]
    # Of 10, two values take 8; the third does not fit, and the fourth does.
    assert made == [["abcd", "efgh"], ["ijk"], ["ijk", "lm"]] and 3 not in kept and 4 in kept
    kept.clear()
    assert kept.of([1], ["mnopqrstuv"], make) == ["MNOPQRSTUV"] and 1 in kept
