"""Doctor: is the calibration of a data set right? Reading, checks of the files, edge scores, verdicts, pictures."""

from .examine import examine
from .inputs import DoctorData, DoctorFrame, read_data
from .verdict import CameraVerdict

__all__ = ['CameraVerdict', 'DoctorData', 'DoctorFrame', 'examine', 'read_data']
