"""Raw operations: one signature each; what torch computes defines correct, native code is fast."""
