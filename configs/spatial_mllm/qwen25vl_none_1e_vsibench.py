# Qwen2.5-VL as it is, fine-tuned on the conversations; nothing knows the geometry. The twin of the others.
_base_ = '../_base_/spatial_mllm.py'
