from __future__ import annotations

import base64

import pytest

from cloud.chat import chat, is_prompts_fault
from models.errors import CompletionError
from models.prompts import Image, Message, Prompt

JPEG = Image(media_type="image/jpeg", data=b"\xff\xd8\xff\xe0 a picture")
SYSTEM = Message(role="system", text="你是小智。")
FIRST = Message(role="user", text="你好")
SAID = Message(role="assistant", text="你好！")
ASKED = Message(role="user", text="这是什么？")
BEGUN = Message(role="assistant", text="这是")
PICTURE = {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{base64.b64encode(JPEG.data).decode()}"}}


def test_a_prompt_is_a_streamed_completion_with_usage() -> None:
    assert chat(Prompt(turn_id="t", messages=(SYSTEM, ASKED), max_tokens=7), "qwen", has_vision=False) == {
        "model": "qwen",
        "messages": [{"role": "system", "content": "你是小智。"}, {"role": "user", "content": "这是什么？"}],
        "max_tokens": 7,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


@pytest.mark.parametrize("end", [(), (BEGUN,)], ids=["asked", "begun"])
@pytest.mark.parametrize("count", [1, 2])
def test_pictures_stand_before_the_question_they_belong_to(end: tuple[Message, ...], count: int) -> None:
    prompt = Prompt(turn_id="t", messages=(SYSTEM, FIRST, SAID, ASKED, *end), images=(JPEG,) * count)
    contents = [message["content"] for message in chat(prompt, "qwen-vl", has_vision=True)["messages"]]
    assert contents[:3] == ["你是小智。", "你好", "你好！"]
    assert contents[3] == [PICTURE] * count + [{"type": "text", "text": "这是什么？"}]


@pytest.mark.parametrize(
    ("messages", "image", "has_vision", "words"),
    [
        ((ASKED,), JPEG, False, "qwen-14b takes no pictures"),
        ((SYSTEM,), JPEG, True, "takes no pictures with this prompt"),
        ((ASKED,), Image(media_type="image/gif", data=b"GIF"), True, "no JPEG or PNG"),
        ((ASKED,), Image(media_type='image/png;x="', data=b"x"), True, "no JPEG or PNG"),
        ((ASKED,), Image(media_type="image/png", data=b""), True, "no JPEG or PNG"),
    ],
)
def test_a_picture_nobody_can_see_is_the_prompt_s_fault(
    messages: tuple[Message, ...], image: Image, has_vision: bool, words: str
) -> None:
    with pytest.raises(CompletionError, match=words) as caught:
        chat(Prompt(turn_id="t", messages=messages, images=(image,)), "qwen-14b", has_vision=has_vision)
    assert is_prompts_fault(caught.value)


def test_other_errors_are_not_the_prompt_s_fault() -> None:
    assert not is_prompts_fault(CompletionError("x"))
