"""Chat templates of tiny models: how each family writes one user turn and opens the reply."""

QWEN = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for b in m.content %}{{ b.text if b.type "
    "== 'text' else '<|vision_start|><|image_pad|><|vision_end|>' }}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VICUNA = (
    "{% for m in messages %}{{ m.role.upper() }}: {% for b in m.content if b.type == 'image' %}"
    "<image>\n{% endfor %}{% for b in m.content if b.type == 'text' %}{{ b.text }} {% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
ONEVISION = (
    "{% for m in messages %}<|im_start|>{{ m.role }} {% for b in m.content if b.type == 'image' %}"
    "<image>\n{% endfor %}{% for b in m.content if b.type == 'text' %}\n{{ b.text }}{% endfor %}"
    "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA = (
    "{{ bos_token }}{% for m in messages %}OPENrolSHUT{{ '\\n\\n' }}{% for b in m.content %}"
    "{{ b.text if b.type == 'text' else '<|image|>' }}{% endfor %}END{% endfor %}"
    "{% if add_generation_prompt %}OPENassistantSHUT{{ '\\n\\n' }}{% endif %}"
).replace("rol", "{{ m.role }}")
LLAMA_3 = (
    LLAMA.replace("OPEN", "<|start_header_id|>")
    .replace("SHUT", "<|end_header_id|>")
    .replace("END", "<|eot_id|>")
)
LLAMA_4 = (
    LLAMA.replace("OPEN", "<|header_start|>")
    .replace("SHUT", "<|header_end|>")
    .replace("END", "<|eot|>")
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m.role }}\n{% for b in m.content %}"
    "{{ b.text | trim if b.type == 'text' else '<start_of_image>' }}{% endfor %}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
SHIELD = (
    "{{ bos_token }}{% for b in messages[0].content %}<start_of_turn>user\n"
    "{{ '\nPolicy: ' + b.text + '\nIs it violated, Yes or No?<end_of_turn>\n' if b.type == 'text' "
    "else '<start_of_image>' }}{% endfor %}{{ '<start_of_turn>model\n' }}"
)
# Guards whose own template puts a policy into the system turn, or drops that turn.
SINGGUARD = (
    "<|im_start|>system\nRules:\n{{ policy or '### A. Sexual Content Risk' }}\nMode: "
    "{{ thinking_type or 'fast-slow' }}<|im_end|>\n"
) + QWEN
NEMOTRON = (
    "{{ bos_token }}<start_of_turn>user\n{{ custom_policy or 'S1: Violence.' }}\n"
    "{% for b in messages[-1].content %}"
    "{{ b.text if b.type == 'text' else '<start_of_image>' }}{% endfor %}\n"
    "{{ request_categories }} {{ '/think' if enable_thinking else '/no_think' }}<end_of_turn>\n"
    "<start_of_turn>model\n"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}[SYSTEM_PROMPT]"
    "{{ m.content[0].text }}[/SYSTEM_PROMPT]{% else %}[INST]{% for b in m.content %}"
    "{{ b.text if b.type == 'text' else '[IMG]' }}{% endfor %}[/INST]{% endif %}{% endfor %}"
)
GLM = (
    "[gMASK]<sop>{% for m in messages %}<|{{ m.role }}|>\n{% for b in m.content %}{{ b.text if "
    "b.type == 'text' else '<|begin_of_image|><|image|><|end_of_image|>' }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
