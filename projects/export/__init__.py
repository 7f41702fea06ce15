"""Export. In: a config and a checkpoint. Out: graphs (torch.export, ONNX), what describes them, and what runs them with numpy.

`numpy_voxels`, `numpy_boxes`, `streaming` and `example` need numpy and onnxruntime alone; the others need the project's own.
"""
