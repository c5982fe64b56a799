// openai's JavaScript client: chat, stream, the tool runner.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: "none", maxRetries: 0 });
const found = {};
const hello = [{ role: "user", content: "你好" }];
found.text = (await client.chat.completions.create({ model: "demo", messages: hello })).choices[0].message.content;
const stream = await client.chat.completions.create({
  model: "demo", messages: hello, stream: true, store: true, metadata: { a: "b" },
});
found.streamed = "";
for await (const chunk of stream) found.streamed += chunk.choices[0]?.delta?.content ?? "";

const called = [];
const runner = client.chat.completions.runTools({
  model: "demo",
  messages: [{ role: "user", content: "北京的天气怎么样？" }],
  tools: [{
    type: "function",
    function: {
      name: "get_weather",
      description: "查询城市的天气",
      parse: JSON.parse,
      function: ({ city }) => { called.push(city); return "晴，20度"; },
      parameters: {
        type: "object",
        properties: { city: { type: "string", description: "城市" } },
        required: ["city"],
      },
    },
  }],
});
found.after_tool = await runner.finalContent();
found.called = called;
console.log(JSON.stringify(found));
