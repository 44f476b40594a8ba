"""Fine-tuning of the judge: a LoRA adapter for the language model, trained on people's decisions."""
