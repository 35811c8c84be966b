"""The keys of Axolotl's configs."""

from typing import Any

from tunewright.config.dialects import common
from tunewright.config.dialects.axolotl_data import sources
from tunewright.config.dialects.reading import Dialect, Handler, Reading
from tunewright.config.text import shown

_SAME = (
    "gradient_accumulation_steps learning_rate weight_decay adam_beta1 adam_beta2 adam_epsilon max_grad_norm "
    "warmup_ratio save_total_limit early_stopping_patience deepspeed dataloader_num_workers attn_implementation"
)
"""Options of `train` with the same name."""
_ATTENTION = {
    "flash_attention": "flash_attention_2",
    "sdp_attention": "sdpa",
    "eager_attention": "eager",
}


def _adapter(reading: Reading, key: str, value: Any) -> None:
    if value == "qlora":
        reading.put("train.load_in_4bit", True, key)
    elif value != "lora":
        reading.refuse(f"should be lora or qlora, not {shown(value)}", "Write adapter: lora.", key)


def _preferences(reading: Reading, key: str, value: Any) -> None:
    message = f"asks for {shown(value)}: only supervised fine-tuning is done here"
    reading.refuse(message, "Delete it, and name rows with an answer each.", key)


def _wandb(reading: Reading, key: str, value: Any) -> None:
    reading.put("train.project", value, key)
    _report(reading, key, "wandb")


def _report(reading: Reading, key: str, tracker: str) -> None:
    before = reading.tree.get("train", {}).get("report_to", [])
    reading.tree.setdefault("train", {})["report_to"] = [*before, tracker]
    reading.places["train", "report_to"] = reading.given(key)


def _tracker(tracker: str) -> Handler:
    def handler(reading: Reading, key: str, _: Any) -> None:
        if reading.flag(key):
            _report(reading, key, tracker)

    return handler


def _targets(reading: Reading) -> None:
    """Take the modules: all linear ones where both are asked for."""
    if reading.flag("lora_target_linear"):
        reading.put("train.lora.target_modules", "all-linear", "lora_target_linear")
        if "lora_target_modules" in reading.keys:
            reading.note("lora_target_linear takes in all linear layers", "lora_target_modules")
    elif "lora_target_modules" in reading.keys:
        common.target_modules(reading, "lora_target_modules", reading.keys["lora_target_modules"])


def _batch(reading: Reading) -> None:
    """Take the batch: `batch_size` is the rows of an optimizer step on one device."""
    rows, micro = reading.keys.get("batch_size"), reading.keys.get("micro_batch_size", 1)
    if rows is None:
        return
    if not (isinstance(rows, int) and isinstance(micro, int)) or micro < 1 or rows % micro:
        reading.refuse(
            f"should be a multiple of micro_batch_size, not {shown(rows)}",
            "Give gradient_accumulation_steps instead.",
            "batch_size",
        )
        return
    reading.put("train.gradient_accumulation_steps", rows // micro, "batch_size")


def _template(reading: Reading, kinds: set[str]) -> None:
    """Take the chat template: the one that is named, else the one that the rows' type implies."""
    jinja, named = reading.keys.get("chat_template_jinja"), reading.keys.get("chat_template")
    if isinstance(jinja, str):
        if "\n" in jinja or "{" in jinja:
            message = "holds a template's text"
            fix = "Write it into a file, and name the file: chat_template: chat.jinja."
            reading.refuse(message, fix, "chat_template_jinja")
        else:
            reading.put("model.chat_template", jinja, "chat_template_jinja")
    elif named is not None:
        common.chat_template(reading, "chat_template", named)
    elif kinds == {"alpaca"}:
        reading.put("model.chat_template", "alpaca", "datasets")
        reading.note(
            "rows of type alpaca are trained in Alpaca's format, so model.chat_template is alpaca; for the "
            "model's own: --set model.chat_template=null",
            "datasets",
        )
    elif "alpaca" in kinds:
        reading.note(
            "the types differ, so all rows are trained in the model's own format", "datasets"
        )


def _repository(reading: Reading, key: str, value: Any) -> None:
    """Take the repository; naming it is how an upload is asked for."""
    common.repository(reading, key, value)
    if isinstance(value, str) and "/" in value:
        common.uploads(reading, key)


def _finish(reading: Reading) -> None:
    _template(reading, sources(reading))
    _targets(reading)
    _batch(reading)
    common.name_run(reading, "wandb_name", "wandb_run_id")
    if "adapter" not in reading.keys:
        reading.note("a LoRA adapter is trained, never all weights", "adapter")
    on = [key for key in _ATTENTION if key in reading.keys and reading.flag(key)]
    for key in on:
        reading.put("train.attn_implementation", _ATTENTION[key], key)


_HANDLERS: dict[str, Handler] = {
    "adapter": _adapter,
    "rl": _preferences,
    "optimizer": common.optimizer,
    **common.HANDLERS,
    "bfloat16": common.bfloat16,
    "float32": common.switch("train.dtype", on="float32"),
    "evals_per_epoch": common.an_epoch,
    "saves_per_epoch": common.an_epoch,
    "sample_packing": common.packing,
    "val_set_size": common.held_out,
    "special_tokens": common.special_tokens,
    "hub_model_id": _repository,
    "hub_strategy": common.agrees("end", otherwise=common.UPLOADS),
    "wandb_project": _wandb,
    "use_wandb": _tracker("wandb"),
    "use_tensorboard": _tracker("tensorboard"),
    "use_trackio": _tracker("trackio"),
    "train_on_inputs": common.agrees(False, otherwise="the loss is on the completion only"),
    "shuffle_merged_datasets": common.agrees(True, otherwise="rows are shuffled every epoch"),
    "strict": common.agrees(True, otherwise="unknown keys that look misspelt are always refused"),
}

_UNUSED = {
    common.UPLOADS: "hf_use_auth_token push_dataset_to_hub",
    "the model's own files say it": "model_type tokenizer_type tokenizer_use_fast tokenizer_legacy processor_type "
    "is_falcon_derived_model is_llama_derived_model is_mistral_derived_model is_qwen_derived_model "
    "base_model_config base_model_ignore_patterns tokenizer_config cls_model_config tokenizer_use_mistral_common "
    "tokenizer_save_jinja_files overrides_of_model_config overrides_of_model_kwargs model_config "
    "added_tokens_overrides resize_token_embeddings_to_32x shrink_embeddings mean_resizing_embeddings "
    "embeddings_skip_upcast fix_untrained_tokens default_system_message eot_tokens num_labels",
    "the base is in 4 bits (train.load_in_4bit) or in 16": "load_in_8bit gptq gptq_disable_exllama "
    "bnb_config_kwargs quantization qat model_quantization_config model_quantization_config_kwargs",
    "the precision is chosen: train.dtype": "fp16 float16 fp8 tf32 fp8_enable_fsdp_float8_all_gather",
    "attention is PyTorch's own, or FlashAttention 2": "xformers_attention s2_attention flex_attention "
    "flex_attn_compile_kwargs flash_optimum flash_attn_cross_entropy flash_attn_rms_norm flash_attn_fuse_qkv "
    "flash_attn_fuse_mlp attn_implementation_kwargs heads_k_stride ring_attn_func",
    "not trained in this way; see `train` and `train.lora` in the reference": "lora_model_dir "
    "lora_fan_in_fan_out lora_target_parameters lora_on_cpu peft peft_layers_to_transform peft_layers_pattern "
    "peft_layer_replication peft_trainable_token_indices peft_autocast_adapter_dtype peft_ensure_weight_tying "
    "loraplus_lr_ratio loraplus_lr_embedding relora relora_steps relora_warmup_steps relora_anneal_steps "
    "relora_prune_ratio relora_prune_method relora_cpu_offload jagged_restart_steps jagged_restart_warmup_steps "
    "jagged_restart_anneal_steps qlora_sharded_model_loading unfrozen_parameters neftune_noise_alpha "
    "noisy_embedding_alpha label_smoothing_factor embedding_lr embedding_lr_scale optim_args "
    "optim_target_modules torchdistx_path lr_scheduler_kwargs lr_quadratic_warmup cosine_min_lr_ratio "
    "cosine_constant_lr_ratio lr_div_factor lr_groups adam_epsilon2 adam_beta3 lisa_n_layers "
    "lisa_step_interval lisa_layers_attribute use_pose pose_split_on_token_ids pose_max_context_len "
    "pose_num_chunks reward_model process_reward_model dpo_use_weighting dpo_use_logits_to_keep orpo_alpha "
    "rpo_alpha simpo_gamma cpo_alpha kto_desirable_weight kto_undesirable_weight rl_beta dpo_beta trl vllm "
    "max_prompt_len merge_lora merge_method",
    "nothing of the library below is replaced": "plugins liger_rope liger_rms_norm liger_glu_activation "
    "liger_layer_norm liger_swiglu liger_cross_entropy liger_fused_linear_cross_entropy cut_cross_entropy "
    "chunked_cross_entropy unsloth_cross_entropy_loss unsloth_lora_mlp unsloth_lora_qkv unsloth_lora_o "
    "unsloth_rms_norm unsloth_rope lora_mlp_kernel lora_qkv_kernel lora_o_kernel llama4_linearized_experts "
    "torch_compile torch_compile_backend torch_compile_mode use_kernels experimental_skip_move_to_device",
    "rows of a batch are padded to the longest": "pad_to_sequence_len eval_sample_packing batch_flattening "
    "sample_packing_eff_est sample_packing_group_size sample_packing_bin_size sample_packing_sequentially "
    "multipack_real_batches curriculum_sampling pretraining_sample_concatenation pretrain_multipack_buffer_size "
    "pretrain_multipack_attn min_sample_len excess_length_strategy",
    "the held-out side is split off the data: prepare.eval_split": "test_datasets",
    "rows with an answer each are trained on: name them in datasets": "pretraining_dataset streaming",
    "where things are kept is settled": "dataset_prepared_path dataset_processes dataset_num_proc "
    "dataset_shard_num dataset_shard_idx skip_prepare_dataset dataset_keep_in_memory "
    "dataset_exact_deduplication remove_unused_columns axolotl_config_path is_preprocess preprocess_iterable "
    "total_num_tokens total_supervised_tokens",
    "training reports by itself, and to train.report_to": "wandb_entity wandb_watch wandb_log_model wandb_mode "
    "mlflow_tracking_uri mlflow_experiment_name mlflow_run_name hf_mlflow_log_artifacts use_mlflow use_comet "
    "comet_api_key comet_workspace comet_project_name comet_experiment_key comet_mode comet_online "
    "comet_experiment_config profiler_steps include_tokens_per_second eval_table_size eval_max_new_tokens "
    "do_causal_lm_eval eval_causal_lm_metrics do_bench_eval bench_dataset bench_split gc_steps debug "
    "gradio_title gradio_share gradio_server_name gradio_server_port gradio_max_new_tokens gradio_temperature",
    "a diverging run is stopped without it": "loss_watchdog_threshold loss_watchdog_patience",
    "checkpoints are whole and go on by themselves; see `tunewright train --help`": "resume_from_checkpoint "
    "auto_resume_from_checkpoints save_only_model",
    "batches fit by themselves: what does not fit is halved": "auto_find_batch_size gradient_checkpointing_kwargs "
    "activation_offloading layer_offloading low_cpu_mem_usage max_memory gpu_memory_limit",
    "processes are the launcher's matter: `accelerate launch`": "fsdp fsdp_config fsdp_version "
    "fsdp_final_state_dict_type ddp ddp_timeout ddp_bucket_cap_mb ddp_broadcast_buffers "
    "ddp_find_unused_parameters device device_map world_size local_rank accelerator_config "
    "sequence_parallel_degree context_parallel_size tensor_parallel_size dp_shard_size dp_replicate_size "
    "use_ray ray_run_name ray_num_workers resources_per_worker",
    "seed and order are fixed by `seed`": "data_seed dataloader_pin_memory dataloader_prefetch_factor "
    "dataloader_drop_last",
}

AXOLOTL = Dialect(
    name="an Axolotl config",
    marks=frozenset(
        [
            "base_model",
            "datasets",
            "micro_batch_size",
            "sequence_len",
            "val_set_size",
            "sample_packing",
        ]
    ),
    same={
        "base_model": "model.model_name_or_path",
        "revision_of_model": "model.revision",
        "tokens": "model.extra_special_tokens",
        "output_dir": "output_dir",
        "seed": "seed",
        "load_in_4bit": "train.load_in_4bit",
        "lora_r": "train.lora.r",
        "lora_alpha": "train.lora.lora_alpha",
        "lora_dropout": "train.lora.lora_dropout",
        "peft_use_dora": "train.lora.use_dora",
        "peft_use_rslora": "train.lora.use_rslora",
        "peft_init_lora_weights": "train.lora.init_lora_weights",
        "sequence_len": "train.max_length",
        "num_epochs": "train.num_train_epochs",
        "micro_batch_size": "train.per_device_train_batch_size",
        "eval_batch_size": "train.per_device_eval_batch_size",
        "lr_scheduler": "train.lr_scheduler_type",
        "hub_revision": "publish.hub_revision",
        **{name: f"train.{name}" for name in _SAME.split()},
    },
    handlers=_HANDLERS,
    together=frozenset(
        [
            *("datasets", "chat_template", "chat_template_jinja", "batch_size"),
            *("lora_target_linear", "lora_target_modules", "wandb_name", "wandb_run_id"),
            *_ATTENTION,
        ]
    ),
    finish=_finish,
    unused=_UNUSED,
    source="datasets",
)
