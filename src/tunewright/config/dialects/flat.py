"""The keys of TRL scripts: flat, TrainingArguments' and SFTConfig's beside those of the model and the adapter."""

from typing import Any, cast

from tunewright.config.dialects import common
from tunewright.config.dialects.reading import Dialect, Handler, Reading
from tunewright.config.sources import source_path

_TRAINING = (
    "num_train_epochs per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps "
    "learning_rate lr_scheduler_type warmup_ratio weight_decay adam_beta1 adam_beta2 adam_epsilon max_grad_norm "
    "save_total_limit early_stopping_patience early_stopping_threshold project attn_implementation "
    "max_train_samples max_eval_samples dataloader_num_workers train_sampling_strategy deepspeed"
)
_QUANTISATION = (
    "use_4bit load_in_4bit bnb_4bit_quant_type bnb_4bit_use_double_quant bnb_4bit_use_nested_quant "
    "use_nested_quant use_double_quant use_bnb_nested_quant"
)
_SOURCES = (
    "dataset_id",
    "dataset_name",
    "dataset_path",
    "dataset",
    "train_file",
    "train_files",
    "data_path",
)
_PARTS = {
    "dataset_config": "name",
    "dataset_config_name": "name",
    "dataset_train_split": "split",
    "dataset_split": "split",
    "dataset_revision": "revision",
}
_COLUMNS = {
    "messages": "messages",
    "conversations": "conversations",
    "prompt": "prompt",
    "completion": "completion",
}


def _sources(reading: Reading) -> None:
    """Take the data: one or several names, with the parts of a Hub dataset."""
    keys = [key for key in _SOURCES if key in reading.keys]
    paths = [path for key in keys for path in _texts(reading, key)]
    if not paths:
        return
    entries = [{"path": source_path(path)} for path in paths]
    for key, part in _PARTS.items():
        if key not in reading.keys:
            continue
        if all(entry["path"].startswith("hub:") for entry in entries):
            entries = [{**entry, part: reading.keys[key]} for entry in entries]
        else:
            reading.note("only a dataset of the Hub has parts; files are read whole", key)
    reading.put("prepare.source", entries, keys[0])


def _texts(reading: Reading, key: str) -> list[str]:
    value = reading.keys[key]
    given = cast("list[Any]", value) if isinstance(value, list) else [value]
    if given and all(isinstance(text, str) and text for text in given):
        return given
    reading.refuse("should be a path or org/name, or a list of them", "Name the data.", key)
    return []


def _length(reading: Reading, key: str, value: Any) -> None:
    reading.put("train.max_length", value, key)


def _text_field(reading: Reading, key: str, value: Any) -> None:
    role = _COLUMNS.get(str(value), "text")
    if value != role:
        reading.put("prepare.columns", {role: value}, key)


def _finish(reading: Reading) -> None:
    _sources(reading)
    if reading.flag("push_to_hub"):
        common.uploads(reading, "push_to_hub")
    common.name_run(reading, "run_name")


_HANDLERS: dict[str, Handler] = {
    "max_seq_length": _length,
    "max_length": _length,
    "model_max_length": _length,
    "dataset_text_field": _text_field,
    "lora_target_modules": common.target_modules,
    "target_modules": common.target_modules,
    **common.HANDLERS,
    "modules_to_save": common.several("train.lora.modules_to_save"),
    "lora_bias": common.agrees("none", otherwise="biases are not trained"),
    "bias": common.agrees("none", otherwise="biases are not trained"),
    "lora_task_type": common.agrees("CAUSAL_LM", otherwise="a causal language model is trained"),
    "task_type": common.agrees("CAUSAL_LM", otherwise="a causal language model is trained"),
    "use_peft": common.agrees(True, otherwise="an adapter is trained, never all weights"),
    "use_lora": common.agrees(True, otherwise="an adapter is trained, never all weights"),
    "use_qlora": common.switch("train.load_in_4bit", on=True),
    "bnb_4bit_compute_dtype": common.dtype("train.bnb_4bit_compute_dtype"),
    "dtype": common.dtype("train.dtype"),
    "activation_checkpointing": common.checkpointing,
    "use_flash_attention": common.switch("train.attn_implementation", on="flash_attention_2"),
    "use_flash_attention_2": common.switch("train.attn_implementation", on="flash_attention_2"),
    "optim": common.optimizer,
    "logging_strategy": common.strategy,
    "packing": common.packing,
    "eval_split": common.held_out,
    "validation_split": common.held_out,
    "test_size": common.held_out,
    "report_to": common.trackers,
    "chat_template": common.chat_template,
    "chat_template_path": common.chat_template,
    "completion_only_loss": common.agrees(True, otherwise="the loss is on the completion only"),
    "assistant_only_loss": common.agrees(True, otherwise="the loss is on the completion only"),
    "truncation_mode": common.agrees("keep_start", otherwise="rows are cut at the end"),
    "do_train": common.agrees(True, otherwise="each stage is a command of its own"),
    "do_eval": common.agrees(True, otherwise="training evaluates"),
    "hub_model_id": common.repository,
    "hub_repo_id": common.repository,
    "push_to_hub_model_id": common.repository,
    "hub_strategy": common.agrees("end", otherwise=common.UPLOADS),
    "shuffle_dataset": common.agrees(True, otherwise="rows are shuffled every epoch"),
    "remove_unused_columns": common.agrees(True, False, otherwise="columns do not reach training"),
}

_UNUSED = {
    common.UPLOADS: "hub_always_push push_to_hub_organization",
    "a token has no place in a file: it comes from the environment (HF_TOKEN, WANDB_API_KEY)": "hub_token token "
    "hf_token push_to_hub_token wandb_api_key use_auth_token",
    "the base is in 4 bits (train.load_in_4bit) or in 16": "use_8bit load_in_8bit bnb_4bit_quant_storage",
    "the precision is chosen: train.dtype": "fp16 fp16_full_eval bf16_full_eval tf32 fp16_opt_level "
    "half_precision_backend fp16_backend",
    "all rows of an answer are learned alike; see train": "label_smoothing_factor neftune_noise_alpha loss_type "
    "lr_scheduler_kwargs optim_args optim_target_modules router_aux_loss_coef use_liger_kernel use_liger "
    "liger_kernel_config lora_target_parameters peft_config lora_layers_to_transform",
    "where things are kept is settled": "overwrite_output_dir logging_dir cache_dir dataset_num_proc "
    "dataset_batch_size dataset_kwargs preprocessing_num_workers dataset_streaming streaming num_of_sequences "
    "chars_per_token skip_prepare_dataset local_files_only save_on_each_node",
    "rows of a batch are padded to the longest": "padding_free pad_to_multiple_of eval_packing packing_strategy "
    "pad_token padding_side pad_to_max_length",
    "the tokenizer's own are used": "eos_token tokenizer_name tokenizer_name_or_path tokenizer_id",
    "checkpoints are whole and go on by themselves; see `tunewright train --help`": "resume_from_checkpoint "
    "save_only_model ignore_data_skip restore_callback_states_from_checkpoint enable_jit_checkpoint",
    "seed and order are fixed by `seed`": "data_seed full_determinism dataloader_drop_last dataloader_pin_memory "
    "dataloader_persistent_workers dataloader_prefetch_factor dataloader_multiprocessing_context "
    "dataloader_in_order length_column_name average_tokens_across_devices",
    "processes are the launcher's matter: `accelerate launch`": "fsdp fsdp_config fsdp_min_num_params "
    "fsdp_transformer_layer_cls_to_wrap ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers "
    "ddp_static_graph ddp_backend ddp_timeout local_rank accelerator_config parallelism_config deepspeed_config "
    "tp_size ray_scope use_cpu no_cuda use_mps_device use_ipex device_map device_map_auto",
    "batches fit by themselves: what does not fit is halved": "auto_find_batch_size torch_empty_cache_steps "
    "activation_offloading activation_checkpointing_kwargs gradient_checkpointing_kwargs",
    "nothing is compiled": "torch_compile torch_compile_backend torch_compile_mode jit_mode_eval torchdynamo "
    "use_cache model_init_kwargs",
    "training reports by itself": "logging_first_step logging_nan_inf_filter log_level log_level_replica "
    "log_on_each_node disable_tqdm include_num_input_tokens_seen include_tokens_per_second include_for_metrics "
    "include_inputs_for_metrics skip_memory_metrics debug wandb_entity wandb_watch wandb_log_model "
    "trackio_space_id trackio_bucket_id trackio_static_space_id label_names past_index",
    "evaluations cover the held-out rows": "eval_on_start eval_delay eval_accumulation_steps "
    "eval_do_concat_batches eval_use_gather_object batch_eval_metrics prediction_loss_only do_predict "
    "dataset_test_split ignore_bias_buffers test_file validation_file eval_file eval_dataset",
}

FLAT = Dialect(
    name="a TRL script's config",
    marks=frozenset(
        [
            *("model_id", "model_name", "model_name_or_path", "max_seq_length", "use_4bit"),
            *_SOURCES,
            *("num_train_epochs", "per_device_train_batch_size"),
        ]
    ),
    same={
        "model_id": "model.model_name_or_path",
        "model_name": "model.model_name_or_path",
        "model_name_or_path": "model.model_name_or_path",
        "model_revision": "model.revision",
        "revision": "model.revision",
        "output_dir": "output_dir",
        "seed": "seed",
        **{name: f"train.{name}" for name in _TRAINING.split()},
        **{
            name: "train.bnb_4bit_use_double_quant"
            if name.endswith(("double_quant", "nested_quant"))
            else "train.load_in_4bit"
            if name.endswith("4bit")
            else f"train.{name}"
            for name in _QUANTISATION.split()
        },
        "lora_r": "train.lora.r",
        "lora_rank": "train.lora.r",
        "wandb_project": "train.project",
        "lr": "train.learning_rate",
        "epochs": "train.num_train_epochs",
        "num_epochs": "train.num_train_epochs",
        "batch_size": "train.per_device_train_batch_size",
        "train_batch_size": "train.per_device_train_batch_size",
        "eval_batch_size": "train.per_device_eval_batch_size",
        "lora_alpha": "train.lora.lora_alpha",
        "lora_dropout": "train.lora.lora_dropout",
        "use_dora": "train.lora.use_dora",
        "use_rslora": "train.lora.use_rslora",
        "init_lora_weights": "train.lora.init_lora_weights",
        "prompt_template": "prepare.prompt_template",
        "hub_private_repo": "publish.hub_private",
        "hub_revision": "publish.hub_revision",
    },
    handlers=_HANDLERS,
    together=frozenset([*_SOURCES, *_PARTS, "run_name", "push_to_hub"]),
    finish=_finish,
    unused=_UNUSED,
    source="dataset_id",
)
