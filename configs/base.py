"""Every key of a configuration, with its meaning and default. Other files change what differs.

Choices with options of their own are written as calls: "dwa", "dwa(floor=0.1)".
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the defaults; the other configurations start from them."""
    config = ConfigDict()

    # Everything random follows from it: split, heads, LoRA, order of rows, dropout.
    config.seed = 42
    # "paper", or "stable" for long runs: options of dwa and imbalance not stated below.
    config.preset = "paper"

    # --- Trunk
    # A local folder or a hub id with Hugging Face weights; "scratch" builds one.
    config.backbone = "scratch"
    # Shape of a RoBERTa from scratch; heads must divide width.
    config.scratch = ConfigDict(
        dict(vocab_size=2000, width=128, layers=2, heads=4, feed_forward=512, max_positions=64)
    )
    # What the trunk computes in: "float32" or "bfloat16". Trained weights stay float32.
    config.dtype = "float32"
    # "first", "last" or "mean" token; "" is what the family's own classifier does.
    config.pooling = ""
    # Dropout, inside the trunk as its own configuration states it and of LoRA.
    config.dropout = True
    # Recomputes activations in the backward pass: less memory, about a third more time.
    config.remat = False
    # Layers side by side in the compiled program: 1 scans them; 0 is all of up to 12 on a CPU,
    # where it saves a tenth of the step, and otherwise 1.
    config.unroll = 0
    # Regular expressions over parameter paths that do not train (without LoRA).
    config.freeze = ()

    # --- LoRA; rank 0 trains the whole trunk
    config.lora_rank = 0
    # Scale is alpha / rank; 0 sets alpha = rank.
    config.lora_alpha = 0.0
    config.lora_dropout = 0.05
    # Scale alpha / sqrt(rank) instead.
    config.lora_rank_stabilized = False
    # Regular expressions over kernels; () is every matrix of attention and feed-forward.
    config.lora_targets = ()
    # Folder of a PEFT LoRA adapter of this backbone to start from; rank, scale and targets
    # are its own, and the keys above but lora_dropout stay as they are.
    config.lora_adapter = ""

    # --- Data: files (CSV, JSONL, also .gz, .bz2, .xz, .zst; Parquet), patterns such as
    # data/*.csv, or hub:NAME[[:CONFIG]:SPLIT]; several with commas between
    config.train = ""
    # Given splits; where both are "" the training rows are split by `fractions`.
    config.validation = ""
    config.test = ""
    # Train, validation, test; (0.9, 0.1, 0.0) is the papers'.
    config.fractions = (0.8, 0.1, 0.1)
    # At most so many rows of `train`, drawn by the seed before they are split; 0 takes all.
    config.max_rows = 0
    # Further files to test on at the end, besides `test`: summary.json's "also_tested".
    config.also_test = ""
    # Rows of the embedded generator of FX headlines, where `train` is "".
    config.generated_rows = 4000
    config.text_column = "text"
    # "" where there is none.
    config.score_column = "score"
    config.category_column = ""
    # Names of the categories, in order, where the column holds names; () for integers.
    config.category_names = ()
    # (lowest, highest) of the file's scores, rescaled to [-1, 1]; () takes them as they are.
    config.score_range = ()
    # Categories of rows without one come from their scores by the thresholds.
    config.derive_categories = True
    # "vader" gives rows without a score VADER's (the extra `vader`), in every split: notes and
    # summary.json say how many. "" leaves them without.
    config.label_with = ""
    # "error" stops at a bad row, "skip" leaves it out and says so.
    config.on_bad_row = "error"
    # Users become @user and links http, as Twitter models were trained.
    config.normalize_tweets = False
    # Tokens a text, special ones included; longer texts are truncated and counted.
    config.max_length = 512
    # Different padded lengths, each of which compiles the step once.
    config.max_buckets = 6
    # Padded lengths are multiples of it: with 8, other rows of the same kind meet the same
    # shapes, and so a warm compilation cache.
    config.pad_to_multiple_of = 1
    # False trains on the rows in their files' order, as a stream.
    config.shuffle = True

    # --- Categories
    config.num_classes = 5
    # das(spacing_penalty=..), das_exact, manual(thresholds=..), equal_width, equal_frequency, ...
    config.stratifier = "das(spacing_penalty=0.01)"

    # --- Tasks, losses and weighting
    # ("regression", "classification"), or one of them.
    config.tasks = ("regression", "classification")
    # mse, lds(weight="sqrt_inverse"|"inverse", sigma=..), balanced_mse(noise_scale=..),
    # balanced_mse_gai(num_components=..).
    config.regression_loss = "mse"
    # imbalance(alpha=.., beta=.., mode="bounded"|"frozen"|"prior"|"literal"), cross_entropy,
    # class_balanced(beta=.., gamma=..), focal(gamma=..), logit_adjusted(tau=..), balanced_softmax.
    config.classification_loss = "imbalance"
    # p_k of the imbalance loss: "batch", "laplace", "moving_average" or "dataset".
    config.proportions = "batch"
    # dwa, adaptive_lambda, adaptive_w, constant(weights=(.75, .25)), single_task, ...
    config.weighting = "dwa"
    # Where the tasks' gradients are compared: "trainable", "representation", "last_layer".
    config.gradient_scope = "trainable"
    # Steps between two comparisons in that scope.
    config.gramian_every = 1
    # Takes the classification's gradient norm of the plain cross-entropy.
    config.norm_of_cross_entropy = False

    # --- Optimization
    config.epochs = 10
    # Rows a step, over all devices.
    config.batch_size = 8
    # Parts that a batch is worked through in; must divide the rows of a device.
    config.microbatches = 1
    config.learning_rate = 2e-5
    config.head_learning_rate = 1e-3
    config.phi_learning_rate = 1e-3
    config.warmup_steps = 100
    config.weight_decay = 0.01
    # Bound on the norm of the trunk's gradient; 0.0: none.
    config.clip_norm = 1.0
    # An update with a NaN or an infinity in it is left out; so many in a row end the run.
    config.max_bad_steps = 10
    # Leaves out updates, too, whose loss or trunk's gradient norm lies more than so many
    # standard deviations above the mean of the last `spike_window` ones; 0.0 looks for none.
    config.skip_spikes = 0.0
    config.spike_window = 100

    # --- Evaluation
    # Validation metric that picks the best epoch: mse, mae, balanced_mse, r2, f1_macro, ...
    config.monitor = "mse"
    # Epochs without a better one after which training stops; 0 never stops early.
    config.patience = 0
    config.eval_batch_size = 32
    # Steps between two records in metrics.jsonl.
    config.log_every = 10
    # Where the records of metrics.jsonl go besides: tensorboard, wandb, with commas between.
    config.writers = ""

    # --- Checkpoints: one an epoch and one at a signal, and in between what a crash may cost
    # Most steps; 0 where the minutes alone say.
    config.checkpoint_every = 0
    # Most minutes; 0.0 where the steps alone say.
    config.checkpoint_minutes = 10.0

    return config.lock()
