"""The claims of the ELPO paper at a size that a laptop can carry. A file a claim."""

from firstfault.evaluation.claims import consistency, ranking, recovery

CLAIMS = {"recovery": recovery, "ranking": ranking, "consistency": consistency}
