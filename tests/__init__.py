import os

# Before anything imports scikit-learn: without it one check per estimator skips itself.
os.environ["SCIPY_ARRAY_API"] = "1"
