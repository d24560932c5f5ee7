"""The chat judge: any vision-language model of transformers, asked in its own chat template."""
