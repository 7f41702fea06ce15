# The same, but only the new parts and adapters of rank 16 learn; needs peft.
_base_ = './qwen25vl_pose-append_1e_vsibench.py'
model = dict(tune='lora', frozen=(), lora=dict(r=16, lora_alpha=32))
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=1e-4))
