"""A text encoder small enough for tests, as transformers keeps one in a folder."""

import torch

WORDS = ["<pad>", "</s>", "<unk>", "a", "red", "green", "blue", "square", "disc", "left", "right", "of"]


def make_encoder(folder, width=16, seed=0):
    """A T5 encoder of two layers with random weights, whose tokens are the words above."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = T5Config(vocab_size=len(WORDS), d_model=width, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
        model = T5EncoderModel(config)
    fast.save_pretrained(folder)
    model.save_pretrained(folder)
    return str(folder)
