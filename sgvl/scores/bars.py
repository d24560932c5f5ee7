"""The bars of the kit, in percent, for a judge that follows the policy and only the policy.

They are ours. Each is named by a measure of ``sgvl.experiments.adherence`` or ``rationales``.
"""

LEAST = {"flips": 95, "stays": 98, "squares right, xor": 80, "right reason, of right verdicts": 85}
MOST = {"order broken": 2}  # by an edit of a policy, and from one level to a stricter one
