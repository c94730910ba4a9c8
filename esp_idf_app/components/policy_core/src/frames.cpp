#include "policy_core/frames.hpp"

#include "policy_core/bytes.hpp"
#include "policy_core/crc32.hpp"

namespace policy_core {
namespace {

bool is_printable(uint8_t byte) {
    return byte >= 0x20 || byte == '\t' || byte == '\n' || byte == '\r' || byte == 0x1B;
}

}  // namespace

size_t FrameBuilder::build(uint8_t type, uint16_t sequence, size_t size, bool damage) {
    Writer header(raw_, kHeaderSize);
    header.u8(kVersion);
    header.u8(type);
    header.u16(sequence);
    header.u16(static_cast<uint16_t>(size));
    const size_t covered = kHeaderSize + size;
    Writer crc(raw_ + covered, kCrcSize);
    crc.u32(crc32(raw_, covered) ^ (damage ? 1u : 0u));
    frame_[0] = kDelimiter;
    const size_t encoded = cobs_encode(raw_, covered + kCrcSize, frame_ + 1);
    frame_[1 + encoded] = kDelimiter;
    return encoded + 2;
}

Decoder::Event Decoder::push(uint8_t byte) {
    if (!inside_) {
        if (byte == kDelimiter) {
            inside_ = true;
            restart();
            return Event::kNone;
        }
        text_size_ = 1;
        return Event::kText;
    }
    if (byte == kDelimiter) {
        return size_ == 0 ? Event::kNone : close();
    }
    printable_ = printable_ && is_printable(byte);
    if (size_ < kMaxSegment) {
        segment_[size_] = byte;
    }
    ++size_;
    return printable_ && byte == '\n' ? text() : Event::kNone;
}

void Decoder::restart() {
    printable_ = true;
    size_ = 0;
}

Decoder::Event Decoder::text() {
    text_size_ = size_;
    restart();
    return Event::kText;
}

Decoder::Event Decoder::damage(ErrorCode error) {
    if (printable_) {
        return text();
    }
    error_ = error;
    has_header_ = false;
    restart();
    return Event::kDamage;
}

Decoder::Event Decoder::close() {
    if (size_ > kMaxSegment) {
        return damage(ErrorCode::kTooLong);
    }
    const size_t size = cobs_decode(segment_, size_, segment_);
    if (size == kNotCobs || size < kHeaderSize + kCrcSize) {
        return damage(ErrorCode::kBadFrame);
    }
    if (size > kMaxRawFrame) {
        return damage(ErrorCode::kTooLong);
    }
    const size_t covered = size - kCrcSize;
    if (crc32(segment_, covered) != load_u32(segment_ + covered)) {
        return damage(ErrorCode::kBadCrc);
    }
    header_ = {segment_[0], segment_[1], load_u16(segment_ + 2), load_u16(segment_ + 4)};
    has_header_ = true;
    inside_ = false;
    if (header_.version != kVersion) {
        error_ = ErrorCode::kBadVersion;
        return Event::kDamage;
    }
    if (header_.length != covered - kHeaderSize) {
        error_ = ErrorCode::kBadLength;
        return Event::kDamage;
    }
    return Event::kFrame;
}

}  // namespace policy_core
