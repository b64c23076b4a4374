"""Our classes, known to the Auto classes of Transformers once this is imported."""

from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification

from .configuration_ser import SERConfig
from .feature_extraction_ser import SERFeatureExtractor
from .modeling_ser import SERForAudioClassification, SERModel

__all__ = ["SERConfig", "SERFeatureExtractor", "SERForAudioClassification", "SERModel"]

AutoConfig.register(SERConfig.model_type, SERConfig, exist_ok=True)
AutoFeatureExtractor.register(SERConfig, SERFeatureExtractor, exist_ok=True)
AutoModel.register(SERConfig, SERModel, exist_ok=True)
AutoModelForAudioClassification.register(SERConfig, SERForAudioClassification, exist_ok=True)
