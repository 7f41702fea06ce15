_base_ = './memory.py'
