// Runs vectors.txt against the decoder and the server.
#include <memory>

#include "bench.hpp"
#include "check.hpp"
#include "vector_file.hpp"

using namespace policy_core;
using fakes::Buffer;

namespace {

const char *name_of(ErrorCode code) {
    switch (code) {
        case ErrorCode::kBadCrc:
            return "BAD_CRC";
        case ErrorCode::kBadFrame:
            return "BAD_FRAME";
        case ErrorCode::kTooLong:
            return "TOO_LONG";
        case ErrorCode::kBadLength:
            return "BAD_LENGTH";
        default:
            return "another";
    }
}

void compare(const std::string &what, const std::string &found, const std::string &expected) {
    if (found != expected) {
        ++failures;
        std::fprintf(stderr, "%s\n  found    %s\n  expected %s\n", what.c_str(), found.c_str(), expected.c_str());
    }
}

/// The events that bytes give, in the file's words; of text only how much it is, which is all the decoder says.
std::string events_of(const Buffer &bytes) {
    auto decoder = std::make_unique<Decoder>();
    std::string all;
    size_t text = 0;
    const auto end_text = [&] {
        if (text > 0) {
            all += "text " + std::to_string(text) + "; ";
        }
        text = 0;
    };
    for (const uint8_t byte : bytes) {
        switch (decoder->push(byte)) {
            case Decoder::Event::kNone:
                break;
            case Decoder::Event::kText:
                text += decoder->text_size();
                break;
            case Decoder::Event::kFrame:
                end_text();
                all += "frame " + std::to_string(decoder->header().version) + ' ' +
                       std::to_string(decoder->header().type) + ' ' + std::to_string(decoder->header().sequence) + ' ' +
                       vectors::hex(decoder->payload(), decoder->payload_size()) + "; ";
                break;
            case Decoder::Event::kDamage:
                end_text();
                all += std::string("damage ") + name_of(decoder->error()) + "; ";
                break;
        }
    }
    end_text();
    return all;
}

/// A block of the file: its first line and those that belong to it.
struct Block {
    vectors::Line head;
    Buffer in;
    std::string expected;
    Buffer out;
    std::vector<std::string> calls;
};

std::vector<Block> blocks(const std::vector<vectors::Line> &lines) {
    std::vector<Block> found;
    for (const vectors::Line &line : lines) {
        const std::string &keyword = line.keyword;
        if (keyword == "decoder" || keyword == "exchange" || keyword == "server" || keyword == "pack") {
            found.push_back({line, {}, {}, {}, {}});
            continue;
        }
        Block &block = found.back();
        std::string joined;
        for (const std::string &word : line.arguments) {
            joined += (joined.empty() ? "" : " ") + word;
        }
        if (keyword == "in" || keyword == "out") {
            Buffer &into = keyword == "in" ? block.in : block.out;
            const Buffer more = vectors::bytes(joined);
            into.insert(into.end(), more.begin(), more.end());
        } else if (keyword == "call") {
            block.calls.push_back(joined);
        } else if (keyword == "text") {
            block.expected += "text " + std::to_string(vectors::bytes(joined).size()) + "; ";
        } else if (keyword != "hex") {
            block.expected += keyword + ' ' + joined + "; ";
        }
    }
    return found;
}

void run(const std::vector<vectors::Line> &lines, size_t portion) {
    const auto packs = vectors::packs(lines);
    std::unique_ptr<Bench> bench;
    size_t decoders = 0;
    size_t exchanges = 0;
    for (const Block &block : blocks(lines)) {
        const std::string &name = block.head.arguments.at(0);
        if (block.head.keyword == "decoder") {
            compare("decoder " + name, events_of(block.in), block.expected);
            ++decoders;
        } else if (block.head.keyword == "server") {
            bench = std::make_unique<Bench>(packs.at(block.head.arguments.at(1)), name == "faults", portion);
        } else if (block.head.keyword == "exchange") {
            bench->system.calls.clear();
            const Buffer &out = bench->say(block.in);
            compare("exchange " + name, vectors::hex(out.data(), out.size()),
                    vectors::hex(block.out.data(), block.out.size()));
            CHECK(bench->system.calls == block.calls);
            ++exchanges;
        }
    }
    CHECK(decoders > 20 && exchanges > 100);
}

}  // namespace

int main(int count, char **arguments) {
    if (count != 2) {
        std::fprintf(stderr, "usage: test_vectors FILE\n");
        return 2;
    }
    const auto lines = vectors::read(arguments[1]);
    for (const size_t portion : {size_t{1}, size_t{7}, SIZE_MAX}) {
        run(lines, portion);
    }
    return outcome();
}
